// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// user is who the program runs as: nonroot, as in other images without a shell.
const user = 65532

// options are what goes into an image.
type options struct {
	name, version, arch string
	program, trust      []byte
}

// entry is a file, or a folder if its name ends with a slash.
type entry struct {
	name    string
	mode    int64
	owner   int
	content []byte
}

// files are what the image holds. The folder of the state belongs to the user, so that a volume that is mounted there does so too.
func files(o options) []entry {
	return []entry{
		{"etc/", 0o755, 0, nil},
		{"etc/passwd", 0o644, 0, fmt.Appendf(nil, "root:x:0:0:root:/:/nologin\nweir:x:%d:%d:Weir:/var/lib/weir:/nologin\n", user, user)},
		{"etc/group", 0o644, 0, fmt.Appendf(nil, "root:x:0:\nweir:x:%d:\n", user)},
		{"etc/ssl/", 0o755, 0, nil},
		{"etc/ssl/certs/", 0o755, 0, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, 0, o.trust},
		{"etc/weir/", 0o755, 0, nil},
		{"tmp/", 0o1777, 0, nil},
		{"usr/", 0o755, 0, nil},
		{"usr/local/", 0o755, 0, nil},
		{"usr/local/bin/", 0o755, 0, nil},
		{"usr/local/bin/weir", 0o755, 0, o.program},
		{"var/", 0o755, 0, nil},
		{"var/lib/", 0o755, 0, nil},
		{"var/lib/weir/", 0o750, user, nil},
	}
}

// Media types of the parts: https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// object is one of JSON. Its members are written in the order of their names.
type object map[string]any

// blob is a part of the archive that others name by its digest.
type blob struct {
	mediaType string
	content   []byte
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// descriptor names a blob: https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md.
func (b blob) descriptor() object {
	return object{"mediaType": b.mediaType, "digest": "sha256:" + digestOf(b.content), "size": len(b.content)}
}

// path is where the archive has it.
func (b blob) path() string { return "blobs/sha256/" + digestOf(b.content) }

// encode makes a blob of an object.
func encode(mediaType string, o object) (blob, error) {
	b, err := json.Marshal(o)
	return blob{mediaType, b}, err
}

// write writes the archive: a layer, its configuration, a manifest, the index of OCI and that of docker save.
func write(to io.Writer, o options) error {
	plain, packed, err := layer(files(o))
	if err != nil {
		return err
	}
	l := blob{layerType, packed}
	config, err := encode(configType, configuration(o, plain))
	if err != nil {
		return err
	}
	manifest, err := encode(manifestType, object{
		"schemaVersion": 2, "mediaType": manifestType, "config": config.descriptor(), "layers": []object{l.descriptor()},
	})
	if err != nil {
		return err
	}
	top := manifest.descriptor()
	top["platform"] = object{"os": "linux", "architecture": o.arch}
	top["annotations"] = object{"org.opencontainers.image.ref.name": o.name, "io.containerd.image.name": o.name}
	index, err := encode(indexType, object{"schemaVersion": 2, "mediaType": indexType, "manifests": []object{top}})
	if err != nil {
		return err
	}
	// The index of docker save. docker load reads no other, unless the engine keeps its images in containerd.
	classic, err := json.Marshal([]object{{"Config": config.path(), "RepoTags": []string{o.name}, "Layers": []string{l.path()}}})
	if err != nil {
		return fmt.Errorf("encode the index of docker save: %w", err)
	}
	parts := []entry{
		{"oci-layout", 0o644, 0, []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", 0o644, 0, index.content},
		{"manifest.json", 0o644, 0, classic},
		{"blobs/", 0o755, 0, nil},
		{"blobs/sha256/", 0o755, 0, nil},
	}
	for _, b := range []blob{l, config, manifest} {
		parts = append(parts, entry{b.path(), 0o644, 0, b.content})
	}
	return archive(to, parts)
}

// configuration says how the image is run: https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md.
func configuration(o options, plain string) object {
	return object{
		"os": "linux", "architecture": o.arch,
		"config": object{
			"User":         fmt.Sprintf("%d:%d", user, user),
			"Entrypoint":   []string{"/usr/local/bin/weir"},
			"Cmd":          []string{"serve", "--config", "/etc/weir/weir.yaml"},
			"Env":          []string{"PATH=/usr/local/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "WEIR_URL=http://127.0.0.1:10001"},
			"WorkingDir":   "/var/lib/weir",
			"Volumes":      object{"/var/lib/weir": object{}},
			"ExposedPorts": object{"10000/tcp": object{}, "10001/tcp": object{}},
			"StopSignal":   "SIGTERM",
			"Labels": object{
				"org.opencontainers.image.title": "weir", "org.opencontainers.image.version": o.version,
				"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.source": "https://github.com/weir-proxy/weir",
			},
		},
		"rootfs": object{"type": "layers", "diff_ids": []string{plain}},
	}
}

// layer packs files and returns the name of the plain bytes with the packed ones.
func layer(entries []entry) (plain string, packed []byte, err error) {
	var out bytes.Buffer
	sum := sha256.New()
	z := gzip.NewWriter(&out)
	if err := archive(io.MultiWriter(sum, z), entries); err != nil {
		return "", nil, err
	}
	if err := z.Close(); err != nil {
		return "", nil, err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), out.Bytes(), nil
}

// archive writes a tar in which nothing depends on when or by whom it was made.
func archive(to io.Writer, entries []entry) error {
	w := tar.NewWriter(to)
	for _, e := range entries {
		kind := byte(tar.TypeReg)
		if e.name[len(e.name)-1] == '/' {
			kind = tar.TypeDir
		}
		if err := w.WriteHeader(&tar.Header{
			Typeflag: kind, Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.content)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return w.Close()
}
