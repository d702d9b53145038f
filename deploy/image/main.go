// SPDX-License-Identifier: Apache-2.0

// Command image packs a weir program into an image of containers, without an engine: make image.
//
// The image holds the program, the certificates that this machine trusts, a user without rights, and nothing else: no shell, no package manager,
// no library. It is an archive in the layout of OCI (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md), with the index of
// docker save besides, which docker load, podman load, skopeo copy oci-archive: and kind load image-archive take. The same program makes the same bytes.
package main

import (
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
)

func main() {
	var o options
	out := flag.String("out", "bin/weir-image.tar", "the `FILE` to write")
	binary := flag.String("binary", "bin/weir", "the `FILE` of the program, linked statically")
	trust := flag.String("ca", "/etc/ssl/certs/ca-certificates.crt", "the `FILE` of the certificates to trust, in PEM")
	flag.StringVar(&o.name, "name", "weir:dev", "the `NAME` of the image, with its tag")
	flag.StringVar(&o.version, "version", "dev", "the `VERSION` of the program")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "the `ARCHITECTURE` that the program is for")
	flag.Parse()
	if err := run(*out, *binary, *trust, o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out, binary, trust string, o options) error {
	var err error
	if o.program, err = os.ReadFile(binary); err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	if o.trust, err = os.ReadFile(trust); err != nil {
		return fmt.Errorf("read the certificates: %w", err)
	}
	if err := checkStatic(binary); err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	if err := write(f, o); err != nil {
		return errors.Join(fmt.Errorf("write the archive: %w", err), f.Close())
	}
	return f.Close()
}

// checkStatic refuses a program that needs a dynamic linker: the image has none.
func checkStatic(binary string) error {
	f, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("%s is no program for Linux: %w", binary, err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically: build it with CGO_ENABLED=0", binary)
		}
	}
	return nil
}
