// SPDX-License-Identifier: Apache-2.0

package pii

// form is what a secret looks like: how it begins, and how many letters, digits, - and _ follow.
type form struct {
	prefix string
	least  int
}

// forms are keys of well-known providers, by their first letter.
var forms = map[byte][]form{
	'A': {{"AKIA", 16}, {"ASIA", 16}, {"AIza", 35}},
	'g': {{"ghp_", 36}, {"gho_", 36}, {"ghs_", 36}, {"ghu_", 36}, {"ghr_", 36}, {"github_pat_", 22}, {"glpat-", 20}, {"gsk_", 40}},
	'h': {{"hf_", 30}},
	'n': {{"npm_", 36}},
	'p': {{"pypi-", 40}, {"pplx-", 40}},
	'r': {{"rk_live_", 20}, {"r8_", 30}},
	's': {{"sk-", 20}, {"sk_live_", 20}, {"sk_test_", 20}},
	'w': {{"whsec_", 20}},
	'x': {{"xoxb-", 20}, {"xoxp-", 20}, {"xoxa-", 20}, {"xoxr-", 20}, {"xai-", 40}},
	'S': {{"SG.", 40}},
}

// secret returns the end of a secret that begins here, 0 if none does.
func secret(t []byte, at int) int {
	switch t[at] {
	case '-':
		return privateKey(t, at)
	case 'e':
		return jwt(t, at)
	}
	for _, f := range forms[t[at]] {
		if !begins(t, at, f.prefix) {
			continue
		}
		end := at + len(f.prefix)
		for end < len(t) && (isToken(t[end]) || t[end] == '.' && f.prefix == "SG.") {
			end++
		}
		if end-at-len(f.prefix) >= f.least {
			return end
		}
	}
	return 0
}

func isToken(c byte) bool { return isLetter(c) || isDigit(c) || c == '-' || c == '_' }

func begins(t []byte, at int, s string) bool {
	return len(t)-at >= len(s) && string(t[at:at+len(s)]) == s
}

// jwt looks for three parts in base64url, the first of which is a JSON object.
func jwt(t []byte, at int) int {
	if !begins(t, at, "eyJ") {
		return 0
	}
	end := at
	for part := range 3 {
		from := end
		for end < len(t) && isToken(t[end]) {
			end++
		}
		if end-from < 10 {
			return 0
		}
		if part < 2 {
			if end >= len(t) || t[end] != '.' {
				return 0
			}
			end++
		}
	}
	return end
}

// privateKey looks for a block of PEM, from its first line to its last or to the end of the text.
func privateKey(t []byte, at int) int {
	const begin, key, finish = "-----BEGIN ", "PRIVATE KEY-----", "-----END "
	if !begins(t, at, begin) {
		return 0
	}
	i := at + len(begin)
	for i < len(t) && i-at < 40 && !begins(t, i, key) {
		i++
	}
	if !begins(t, i, key) {
		return 0
	}
	for i += len(key); i < len(t); i++ {
		if begins(t, i, finish) {
			for i += len(finish); i < len(t) && !begins(t, i, key); i++ {
				if t[i] == '\n' {
					return i
				}
			}
			return min(i+len(key), len(t))
		}
	}
	return len(t)
}
