// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config/validation/envoyfilter"
	"istio.io/istio/pkg/config/xds"

	"github.com/weir-proxy/weir/internal/repo"
)

// TestEnvoyFilterPatchesHaveNoUnknownField reads each patch as what Envoy reads. Neither the API server nor istiod does so: a field of a filter whose
// name is misspelt is dropped without a word, and Envoy does without it.
func TestEnvoyFilterPatchesHaveNoUnknownField(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repo.Root(t), "deploy", "istio", "*", "filters.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		place := filepath.Base(filepath.Dir(f))
		t.Run(place, func(t *testing.T) {
			text := readFile(t, "deploy", "istio", place, "filters.yaml")
			if err := strict(text); err != nil {
				t.Error(err)
			}
			for _, field := range []string{"message_timeout:", "num_retries:", "override_metadata_namespace:", "cluster_name:"} {
				wrong := strings.Replace(text, field, "mis"+field, 1)
				if wrong != text && strict(wrong) == nil {
					t.Errorf("with mis%s nothing was said", field)
				}
			}
		})
	}
}

// strict returns what is wrong with the patches of EnvoyFilters.
func strict(text string) error {
	configs, unknown, err := crd.ParseInputs(text)
	if err != nil {
		return err
	}
	if len(configs) == 0 || len(unknown) > 0 {
		return fmt.Errorf("%d EnvoyFilters, and unknown: %v", len(configs), unknown)
	}
	for _, c := range configs {
		filter, ok := c.Spec.(*networking.EnvoyFilter)
		if !ok {
			return fmt.Errorf("%s is a %s", c.Name, c.GroupVersionKind.Kind)
		}
		if _, err := envoyfilter.ValidateEnvoyFilter(c); err != nil {
			return err
		}
		for i, patch := range filter.GetConfigPatches() {
			value := patch.GetPatch().GetValue()
			if _, err := xds.BuildXDSObjectFromStruct(patch.GetApplyTo(), value, true); err != nil {
				return fmt.Errorf("%s: patch %d: %w", c.Name, i, err)
			}
			if err := strictWithin(value); err != nil {
				return fmt.Errorf("%s: patch %d: %w", c.Name, i, err)
			}
		}
	}
	return nil
}

// strictWithin looks for what is written as a TypedStruct, which hides what it holds.
func strictWithin(s *structpb.Struct) error {
	f := s.GetFields()
	if strings.HasSuffix(f["@type"].GetStringValue(), "/xds.type.v3.TypedStruct") {
		kind, err := protoregistry.GlobalTypes.FindMessageByURL(f["type_url"].GetStringValue())
		if err != nil {
			return err
		}
		b, err := protojson.Marshal(f["value"].GetStructValue())
		if err != nil {
			return err
		}
		return protojson.Unmarshal(b, kind.New().Interface())
	}
	for _, v := range f {
		for _, v := range append([]*structpb.Value{v}, v.GetListValue().GetValues()...) {
			if err := strictWithin(v.GetStructValue()); err != nil {
				return err
			}
		}
	}
	return nil
}
