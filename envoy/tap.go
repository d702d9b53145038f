// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	dynamicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/dynamic_modules/v3"
	dynamicfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_modules/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weir-proxy/weir/envoy/native"
)

// Tap is what looks at responses as they pass. Both kinds do the same; the native one costs less.
type Tap string

// The kinds.
const (
	TapNative Tap = "native" // a module that Envoy loads, for the Envoys that Weir starts itself
	TapLua    Tap = "lua"    // a script, for any Envoy
)

//go:embed lua/tap.lua
var tapLua string

// tap returns the filter that looks at responses.
func (g Gateway) tap() namedFilter {
	if g.TapModule == "" {
		return namedFilter{"envoy.filters.http.lua", &luav3.Lua{DefaultSourceCode: inline(tapLua)}}
	}
	return namedFilter{"envoy.filters.http.dynamic_modules", &dynamicfilterv3.DynamicModuleFilter{
		FilterName: "tap",
		DynamicModuleConfig: &dynamicv3.DynamicModuleConfig{
			DoNotClose: true, // it is there for as long as Envoy
			Module: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_Filename{Filename: g.TapModule},
			}}},
		},
	}}
}

// WriteTap writes the native tap below dir, unless it is there already, and returns its path once the Envoy at binary has been seen to load it. The
// error says why this Envoy cannot have it; it can have the one in Lua. A module that Envoy cannot load would cost the gateway its listener.
func WriteTap(ctx context.Context, binary, dir string) (path string, err error) {
	module := native.Module(runtime.GOOS, runtime.GOARCH)
	if module == nil {
		return "", fmt.Errorf("there is no native tap for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	version, err := Version(ctx, binary)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(version, native.Envoy+".") {
		return "", fmt.Errorf("the native tap is for Envoy %s, not %s", native.Envoy, version)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	// The name has the hash: what a running Envoy has loaded is never written to.
	sum := sha256.Sum256(module)
	path = filepath.Join(dir, "tap-"+hex.EncodeToString(sum[:8])+".so")
	if err := writeOnce(path, module); err != nil {
		return "", fmt.Errorf("write native tap: %w", err)
	}
	if err := validateTap(ctx, binary, path); err != nil {
		return "", fmt.Errorf("envoy cannot load the native tap: %w", err)
	}
	return path, nil
}

// writeOnce makes a file appear whole, unless it is there with these bytes.
func writeOnce(path string, b []byte) (err error) {
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tap-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// validateTimeout bounds how long Envoy may take to say whether it loads the module; it takes a tenth of a second.
const validateTimeout = 10 * time.Second

// validateTap has Envoy check a configuration that has nothing but the module in it, which loads it.
func validateTap(ctx context.Context, binary, path string) error {
	filters, err := httpFilters([]namedFilter{Gateway{TapModule: path}.tap(), {"envoy.filters.http.router", &routerv3.Router{}}})
	if err != nil {
		return err
	}
	manager, err := anypb.New(&hcmv3.HttpConnectionManager{
		StatPrefix: "tap", HttpFilters: filters, RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{},
	})
	if err != nil {
		return err
	}
	b, err := protojson.Marshal(&bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{
		Listeners: []*listenerv3.Listener{{
			Name: "tap",
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{}, // nothing listens there: it is only checked
			}}},
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: manager},
			}}}},
		}},
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	said, err := exec.CommandContext(ctx, binary, "--mode", "validate", "--disable-hot-restart", "--log-level", "error", "--config-yaml", string(b)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(said))
	}
	return nil
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[bytes.LastIndexByte(b, '\n')+1:]
}
