// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what operators take as it is. Its tests hold the files together with the defaults of the program: who stops Envoy must wait for
// longer than it drains, and give it as many files as it takes connections.
package deploy

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/weir-proxy/weir/internal/config"
)

// unit reads a unit of systemd: the last value of each key.
func unit(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			out[key] = value
		}
	}
	return out
}

// duration reads "11min" of systemd and "11m" of Compose.
func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.Replace(text, "min", "m", 1))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// longestStop is what weir envoy may take to stop by its defaults.
func longestStop() time.Duration {
	e := config.Default().Envoy
	return e.DrainNotice + e.Drain + 10*time.Second
}

func TestUnitsGiveTheProgramsWhatTheyNeed(t *testing.T) {
	processor, envoy := unit(t, "weir.service"), unit(t, "weir-envoy.service")
	for name, u := range map[string]map[string]string{"weir.service": processor, "weir-envoy.service": envoy} {
		for key, want := range map[string]string{
			"User": "weir", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "", "StateDirectory": "weir",
			"KillMode":              "mixed", // SIGTERM to Envoy itself would cut its streams
			"Restart":               "always",
			"StartLimitIntervalSec": "0",
		} {
			if got, set := u[key]; !set || got != want {
				t.Errorf("%s: %s=%s, want %s", name, key, got, want)
			}
		}
	}
	if got := duration(t, envoy["TimeoutStopSec"]); got < longestStop() {
		t.Errorf("weir-envoy.service is killed after %v, while it may drain for %v", got, longestStop())
	}
	if n, err := strconv.Atoi(envoy["LimitNOFILE"]); err != nil || n < 2*config.Default().Envoy.MaxConnections {
		t.Errorf("weir-envoy.service may open %d files, %v", n, err)
	}
	if got := duration(t, processor["RestartSec"]); got > time.Second {
		t.Errorf("weir.service is started again after %v, and Envoy holds requests for 3.5 s", got)
	}
	if _, bound := envoy["Requires"]; bound || envoy["BindsTo"] != "" {
		t.Error("weir-envoy.service ends with the processor")
	}
}

// service is one of compose.yaml.
type service struct {
	User        string         `yaml:"user"`
	ReadOnly    bool           `yaml:"read_only"`
	CapDrop     []string       `yaml:"cap_drop"`
	SecurityOpt []string       `yaml:"security_opt"`
	NetworkMode string         `yaml:"network_mode"`
	Healthcheck map[string]any `yaml:"healthcheck"`
	Grace       string         `yaml:"stop_grace_period"`
	Ulimits     map[string]int `yaml:"ulimits"`
	Volumes     []string       `yaml:"volumes"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func TestComposeGivesTheProgramsWhatTheyNeed(t *testing.T) {
	b, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]service `yaml:"services"`
		Volumes  map[string]any     `yaml:"volumes"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		if len(s.Healthcheck) == 0 {
			t.Errorf("%s has no health check", name)
		}
		for other, d := range s.DependsOn {
			if o, there := file.Services[other]; !there || d.Condition == "service_healthy" && len(o.Healthcheck) == 0 {
				t.Errorf("%s waits for %s to be healthy, which it cannot be", name, other)
			}
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			if _, known := file.Volumes[volume]; !known && !strings.HasPrefix(volume, "./") {
				t.Errorf("%s: volume %s is not declared", name, volume)
			}
		}
	}
	for _, name := range []string{"weir", "envoy"} {
		s := file.Services[name]
		if s.User != "65532:65532" || !s.ReadOnly || strings.Join(s.CapDrop, "") != "ALL" || strings.Join(s.SecurityOpt, "") != "no-new-privileges:true" {
			t.Errorf("%s has rights that it does not need: %+v", name, s)
		}
	}
	envoy := file.Services["envoy"]
	if got := duration(t, envoy.Grace); got < longestStop() {
		t.Errorf("envoy is killed after %v, while it may drain for %v", got, longestStop())
	}
	if envoy.Ulimits["nofile"] < 2*config.Default().Envoy.MaxConnections {
		t.Errorf("envoy may open %d files", envoy.Ulimits["nofile"])
	}
	if file.Services["weir"].NetworkMode != "service:envoy" {
		t.Error("the processor does not reach Envoy's admin interface, which is on loopback")
	}
}

func TestComposeHasAConfigurationThatLoads(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://weir:x@postgres/weir")
	t.Setenv("WEIR_SECRET_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	t.Setenv("WEIR_ADMIN_TOKEN", "token")
	c, err := config.Load("compose/weir.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ValidateSecrets(); err != nil {
		t.Error(err)
	}
	if c.StateDir != "/var/lib/weir" || !strings.HasPrefix(c.Envoy.Admin, "127.0.0.1:") {
		t.Errorf("state in %s, Envoy's admin interface at %s", c.StateDir, c.Envoy.Admin)
	}
}
