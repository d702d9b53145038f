// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const wasm = "\x00asm\x01\x00\x00\x00the module"

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// depot is a registry with one repository, guard, that is kept in memory. It speaks as much of the distribution specification as pulling takes.
type depot struct {
	blobs     map[string][]byte // by digest
	manifests map[string][]byte // by digest and tag
	types     map[string]string // of manifests
	login     string            // user:password that it wants; empty: none
}

func newDepot(t *testing.T) (d *depot, host string) {
	t.Helper()
	d = &depot{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	return d, strings.TrimPrefix(s.URL, "http://")
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if d.login != "" && user+":"+password != d.login {
		w.Header().Set("WWW-Authenticate", `Basic realm="depot"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var b []byte
	contentType := "application/octet-stream"
	if ref, ok := strings.CutPrefix(r.URL.Path, "/v2/guard/manifests/"); ok {
		b, contentType = d.manifests[ref], d.types[ref]
	} else if ref, ok := strings.CutPrefix(r.URL.Path, "/v2/guard/blobs/"); ok {
		b = d.blobs[ref]
	}
	if b == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.Header().Set("Docker-Content-Digest", "sha256:"+sum(b))
	_, _ = w.Write(b)
}

// descriptor is a part of a manifest.
type descriptor struct {
	MediaType string            `json:"mediaType"`
	Digest    string            `json:"digest"`
	Size      int               `json:"size"`
	Platform  map[string]string `json:"platform,omitempty"`
}

func (d *depot) blob(mediaType string, b []byte) descriptor {
	digest := "sha256:" + sum(b)
	d.blobs[digest] = b
	return descriptor{MediaType: mediaType, Digest: digest, Size: len(b)}
}

// manifest stores a manifest, or an index if that is its type.
func (d *depot) manifest(tag, mediaType string, parts ...descriptor) descriptor {
	m := map[string]any{"schemaVersion": 2, "mediaType": mediaType}
	if strings.Contains(mediaType, "index") || strings.Contains(mediaType, "list") {
		m["manifests"] = parts
	} else {
		m["config"] = d.blob("application/vnd.oci.empty.v1+json", []byte("{}"))
		m["layers"] = parts
	}
	b, _ := json.Marshal(m) // it cannot fail
	digest := "sha256:" + sum(b)
	for _, ref := range []string{tag, digest} {
		d.manifests[ref], d.types[ref] = b, mediaType
	}
	return descriptor{MediaType: mediaType, Digest: digest, Size: len(b)}
}

// packed is an archive of files, names and contents in turn.
func packed(zip bool, files ...string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	a := tar.NewWriter(z)
	if !zip {
		a = tar.NewWriter(&b)
	}
	for i := 0; i < len(files); i += 2 {
		_ = a.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}) // into memory
		_, _ = a.Write([]byte(files[i+1]))
	}
	_ = a.Close()
	if zip {
		_ = z.Close()
	}
	return b.Bytes()
}

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	dockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

func TestModulesComeFromRegistriesInTheLayoutsOfOthers(t *testing.T) {
	d, host := newDepot(t)
	module := d.blob("application/vnd.module.wasm.content.layer.v1+wasm", []byte(wasm))
	d.manifest("artifact", ociManifest, module)
	d.manifest("cncf", ociManifest, d.blob("application/wasm", []byte(wasm)))
	d.manifest("image", ociManifest, d.blob(ociLayer, packed(true, "./plugin.wasm", wasm)))
	docker := d.manifest("docker", dockerManifest, d.blob(dockerLayer, packed(true, "etc/x", "y")), d.blob(dockerLayer, packed(true, "plugin.wasm", wasm)))
	d.manifest("plain-tar", ociManifest, d.blob("application/vnd.oci.image.layer.v1.tar", packed(false, "other.wasm", wasm)))
	d.manifest("higress", ociManifest,
		d.blob("application/vnd.module.wasm.spec.v1+yaml", []byte("spec")), d.blob("application/vnd.module.wasm.doc.v1+markdown", []byte("# Manual")),
		d.blob(ociLayer, packed(true, "plugin.wasm", wasm)))
	elsewhere := d.manifest("amd64", ociManifest, d.blob(ociLayer, packed(true, "bin/sh", "no")))
	elsewhere.Platform = map[string]string{"os": "linux", "architecture": "amd64"}
	here := d.manifest("wasm", ociManifest, d.blob("application/wasm", []byte(wasm)))
	here.Platform = map[string]string{"os": "wasip1", "architecture": "wasm"}
	d.manifest("latest", ociIndex, elsewhere, here)
	d.manifest("list", dockerIndex, docker)

	for _, ref := range []string{":artifact", ":cncf", ":image", ":docker", ":plain-tar", ":higress", ":latest", "", ":list", "@" + docker.Digest, ":cncf#sha256=" + sum([]byte(wasm))} {
		got, err := Module(t.Context(), "oci://"+host+"/guard"+ref, Options{})
		if err != nil || string(got) != wasm {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
	d.manifest("none", ociManifest, d.blob(ociLayer, packed(true, "readme", "x")))
	d.manifest("two", ociManifest, d.blob(ociLayer, packed(true, "a.wasm", wasm, "b.wasm", wasm)))
	d.manifest("large", ociManifest, d.blob("application/wasm", bytes.Repeat([]byte("x"), 301)))
	d.manifest("bomb", ociManifest, d.blob(ociLayer, packed(true, "plugin.wasm", strings.Repeat("x", 1000))))
	d.manifest("long", ociManifest, d.blob(ociLayer, packed(true, "a", strings.Repeat("x", 70000), "plugin.wasm", wasm)))
	module.Digest = "sha256:" + sum([]byte("another"))
	d.blobs[module.Digest] = []byte(wasm)
	d.manifest("forged", ociManifest, module)
	for ref, want := range map[string]string{
		":none": "no WebAssembly module; its layers are " + ociLayer, ":two": "2 modules", ":large": "301 bytes, at most 300",
		":bomb": "longer than 300 bytes", ":long": "much longer", ":forged": "fetch sha256:", ":missing": "not found", "/:x": "names nothing",
		":cncf#sha256=" + sum([]byte("x")): "has the SHA-256", ":cncf#md5=1": "is no SHA-256",
	} {
		_, err := Module(t.Context(), "oci://"+host+"/guard"+ref, Options{MaxBytes: 300})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestRegistriesAreGivenTheLoginOfDocker(t *testing.T) {
	d, host := newDepot(t)
	d.login = "ann:secret"
	d.manifest("1", ociManifest, d.blob("application/wasm", []byte(wasm)))
	if _, err := Module(t.Context(), "oci://"+host+"/guard:1", Options{}); err == nil || !strings.Contains(err.Error(), "credential not found") {
		t.Errorf("without a login: %v", err)
	}
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(d.login)))
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Module(t.Context(), "oci://"+host+"/guard:1", Options{}); err != nil || string(got) != wasm {
		t.Errorf("with it: %q, %v", got, err)
	}
}

func TestModulesOfURLsAreThoseThatWereMeant(t *testing.T) {
	mux := http.NewServeMux()
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	mux.HandleFunc("/guard.wasm", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(wasm)) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/guard.wasm", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/guard.wasm", http.StatusFound)
	})
	o := Options{Client: s.Client(), MaxBytes: 100}
	right := "#sha256=" + sum([]byte(wasm))
	for _, path := range []string{"/guard.wasm", "/moved"} {
		if got, err := Module(t.Context(), s.URL+path+right, o); err != nil || string(got) != wasm {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for source, want := range map[string]string{
		s.URL + "/guard.wasm":                                "needs its SHA-256",
		s.URL + "/guard.wasm#sha256=" + sum([]byte("other")): "has the SHA-256",
		s.URL + "/guard.wasm#sha256=abc":                     "is no SHA-256",
		s.URL + "/away" + right:                              "away from https",
		s.URL + "/none" + right:                              "404",
		"http://127.0.0.1/guard.wasm" + right:                "do not come by http://",
		"ftp://x/y":                                          "do not come by ftp://",
		"https://" + right:                                   "is no URL",
	} {
		if _, err := Module(t.Context(), source, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
	o.MaxBytes = 5
	_, err := Module(t.Context(), s.URL+"/guard.wasm"+right, o)
	if e, ok := errors.AsType[*Error](err); !ok || e.Hint == "" {
		t.Errorf("too long: %v", err)
	}
}

func TestModulesOfFilesAreRead(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "guard.wasm")
	if err := os.WriteFile(name, []byte(wasm), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Module(t.Context(), name, Options{}); err != nil || string(got) != wasm {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Module(t.Context(), name, Options{MaxBytes: 3}); err == nil {
		t.Error("a file that is too long is read")
	}
	if _, err := Module(t.Context(), name+"x", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestNamesFollowFromSources(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"bin/Guard.wasm": "guard", "./guard": "guard", "https://x.org/a/guard.wasm?v=1#sha256=ab": "guard",
		"oci://r.io:5000/team/guard:1.2": "guard", "oci://r.io/guard@sha256:ab": "guard", "oci://r.io/guard": "guard",
	} {
		if got := Name(source); got != want {
			t.Errorf("Name(%q) = %q, want %q", source, got, want)
		}
	}
}
