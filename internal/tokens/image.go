// SPDX-License-Identifier: Apache-2.0

package tokens

// image is how a model's provider counts images. The zero value is that of a model which takes none.
type image struct {
	way     imageWay
	base    int64 // tiles: of every image
	each    int64 // tiles: of a tile; patches: hundredths of a token for a patch
	patches int64 // the most that an image is cut into
}

// imageWay is one of the ways to cut images into pieces.
type imageWay uint8

const (
	imageUnknown imageWay = iota
	imageTiles
	imagePatches
)

func tiles(base, each int64) image { return image{way: imageTiles, base: base, each: each} }

func patches(hundredths, most int64) image {
	return image{way: imagePatches, each: hundredths, patches: most}
}

// unknownImage is the rule where none is known. The largest images of models with published limits have some 16,000 tokens.
var unknownImage = image{way: imageUnknown, base: 85, each: 170, patches: 16_384}

// pixels is the size of an image; not known if either is zero.
type pixels struct{ width, height int64 }

func (p pixels) known() bool { return p.width > 0 && p.height > 0 }

// The measures of tiles and patches, in pixels.
const (
	tile      = 512
	patch     = 32
	outerSide = 2048 // tiles: an image is scaled down to this long side,
	innerSide = 768  // and then to this short one
	mostTiles = 8    // of an image of 2048 × 768; anything narrower has fewer
)

// patchesHigh is how many patches a model that can take more has unless the request asks for the original.
const patchesHigh = 2500

// tokens returns how many tokens an image probably has, and how many at most. detail is what the request says of it: low, high, auto, original, or nothing.
func (m image) tokens(p pixels, detail string) (probably, most int64) {
	switch m.way {
	case imageTiles:
		if detail == "low" {
			return m.base, m.base
		}
		if !p.known() {
			most = m.base + m.each*mostTiles
			return most, most
		}
		// Whether a small image is scaled up is not said; most takes it to be.
		return m.base + m.each*countTiles(p, false), m.base + m.each*countTiles(p, true)
	case imagePatches:
		limit := m.patches
		if limit > patchesHigh && detail != "original" {
			limit = patchesHigh
		}
		n := limit
		if p.known() {
			n = min(n, countPatches(p))
		}
		most = n
		if p.known() && detail != "high" && detail != "low" { // what auto means may change
			most = min(m.patches, countPatches(p))
		}
		return ceil(n*m.each, 100), ceil(most*m.each, 100)
	}
	probably = m.base + m.each*mostTiles
	if p.known() {
		probably = m.base + m.each*countTiles(p, false)
	}
	return probably, max(probably, m.patches)
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }

// countTiles scales an image as OpenAI does and returns the number of tiles. Sizes of images fit 32 bits, so that nothing overflows.
func countTiles(p pixels, up bool) int64 {
	w, h := p.width, p.height
	if long := max(w, h); long > outerSide {
		w, h = max(ceil(w*outerSide, long), 1), max(ceil(h*outerSide, long), 1)
	}
	if short := min(w, h); short > innerSide || up {
		w, h = ceil(w*innerSide, short), ceil(h*innerSide, short)
	}
	return min(ceil(w, tile)*ceil(h, tile), mostTiles)
}

func countPatches(p pixels) int64 { return ceil(p.width, patch) * ceil(p.height, patch) }
