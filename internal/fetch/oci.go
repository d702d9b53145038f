// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// What tools put modules into. Each layout has its module in one layer, in the first of these forms that there is:
//
//	as it is                   application/vnd.module.wasm.content.layer.v1+wasm, application/vnd.wasm.content.layer.v1+wasm,
//	                           application/wasm: Istio's and Envoy Gateway's artifacts, and those of the CNCF's working group
//	plugin.wasm in an archive  the layers of an OCI or Docker image, with or without gzip: Istio's and Envoy Gateway's
//	                           images; and Higress's artifacts, which have a manual and a specification beside it
//
// https://github.com/solo-io/wasm/blob/master/spec/README.md, https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/
func plain(mediaType string) bool {
	return slices.Contains([]string{
		"application/vnd.module.wasm.content.layer.v1+wasm", "application/vnd.wasm.content.layer.v1+wasm", "application/wasm",
	}, mediaType)
}

func archived(mediaType string) bool {
	return slices.Contains([]string{
		ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip,
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}, mediaType)
}

// Media types that the image specification does not have.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// pull gets a module from a registry. It uses the credentials that docker login has stored, and plain HTTP for this machine alone.
func pull(ctx context.Context, ref string, o Options) ([]byte, error) {
	repo, err := remote.NewRepository(ref)
	if err != nil || repo.Reference.ValidateReference() != nil {
		return nil, &Error{fmt.Sprintf("oci://%s names nothing in a registry", ref), "it is oci://HOST/PATH:TAG or oci://HOST/PATH@sha256:DIGEST"}
	}
	if repo.Reference.Reference == "" {
		repo.Reference.Reference = "latest"
	}
	repo.PlainHTTP = thisMachine(repo.Reference.Host())
	client := &auth.Client{Client: o.Client, Cache: auth.NewCache()}
	if stored, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err == nil {
		client.Credential = credentials.Credential(stored)
	}
	repo.Client = client
	r := registry{repo, o.MaxBytes}
	root, err := repo.Resolve(ctx, repo.Reference.Reference)
	if err != nil {
		return nil, fmt.Errorf("pull oci://%s: %w", ref, err)
	}
	layers, err := r.layers(ctx, root)
	if err == nil {
		var wasm []byte
		if wasm, err = r.module(ctx, layers); err == nil {
			return wasm, nil
		}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return nil, &Error{fmt.Sprintf("oci://%s: %s", ref, e.Reason), e.Hint}
	}
	return nil, fmt.Errorf("pull oci://%s: %w", ref, err)
}

func thisMachine(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// registry is a repository of a registry, and how much may be read from it.
type registry struct {
	repo *remote.Repository
	most int64 // bytes of a module
}

// maxManifest is in bytes; registries have a limit of 4 MiB, and real ones have a few kilobytes.
const maxManifest = 1 << 20

// fetch reads what a descriptor describes; its size and digest are checked.
func (r *registry) fetch(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, &Error{fmt.Sprintf("%s has %d bytes, at most %d", d.Digest, d.Size, most), ""}
	}
	b, err := content.FetchAll(ctx, r.repo, d)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	return b, nil
}

// layers finds the layers of a manifest, or of the manifest for WebAssembly in an index, or else of its first.
func (r *registry) layers(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	b, err := r.fetch(ctx, d, maxManifest)
	if err != nil {
		return nil, err
	}
	if d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == dockerIndex {
		var index ocispec.Index
		if err := json.Unmarshal(b, &index); err != nil {
			return nil, fmt.Errorf("read the index: %w", err)
		}
		if len(index.Manifests) == 0 {
			return nil, &Error{"it is an empty index", ""}
		}
		one := index.Manifests[max(0, slices.IndexFunc(index.Manifests, func(m ocispec.Descriptor) bool {
			return m.Platform != nil && strings.HasPrefix(m.Platform.Architecture, "wasm")
		}))]
		if one.MediaType != ocispec.MediaTypeImageManifest && one.MediaType != dockerManifest {
			return nil, &Error{"it is an index of indexes", ""}
		}
		if b, err = r.fetch(ctx, one, maxManifest); err != nil {
			return nil, err
		}
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	return m.Layers, nil
}

// module finds the module in layers. Later layers of an image lie over earlier ones.
func (r *registry) module(ctx context.Context, layers []ocispec.Descriptor) ([]byte, error) {
	for _, l := range layers {
		if plain(l.MediaType) {
			return r.fetch(ctx, l, r.most)
		}
	}
	var types []string
	for _, l := range slices.Backward(layers) {
		types = append(types, l.MediaType)
		if !archived(l.MediaType) {
			continue
		}
		b, err := r.fetch(ctx, l, r.most)
		if err != nil {
			return nil, err
		}
		if wasm, err := unpack(b, r.most); wasm != nil || err != nil {
			return wasm, err
		}
	}
	return nil, &Error{
		"it has no WebAssembly module; its layers are " + strings.Join(types, ", "),
		"push the module as a layer of the type application/wasm, or as plugin.wasm in an image",
	}
}

// unpack returns plugin.wasm of an archive, or the only file that ends so; nil if there is none.
func unpack(b []byte, most int64) ([]byte, error) {
	var in io.Reader = bytes.NewReader(b)
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("unpack a layer: %w", err)
		}
		in = z
	}
	// What is unpacked and thrown away is bounded too.
	rest := &io.LimitedReader{R: in, N: 4*most + 64<<10}
	archive := tar.NewReader(rest)
	var other []byte
	others := 0
	for {
		h, err := archive.Next()
		if rest.N <= 0 {
			return nil, &Error{"a layer is much longer than a module can be", "push an image with nothing in it but plugin.wasm"}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("unpack a layer: %w", err)
		}
		if h.Typeflag != tar.TypeReg || path.Ext(h.Name) != ".wasm" {
			continue
		}
		wasm, err := limited(archive, h.Name, most)
		if err != nil {
			return nil, err
		}
		if path.Base(h.Name) == "plugin.wasm" {
			return wasm, nil
		}
		other = wasm
		others++
	}
	if others > 1 {
		return nil, &Error{fmt.Sprintf("a layer has %d modules, and none is plugin.wasm", others), ""}
	}
	return other, nil
}
