// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-proxy/weir/internal/admin"
	"github.com/weir-proxy/weir/internal/fetch"
	"github.com/weir-proxy/weir/plugins/trial"
)

func pluginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin COMMAND",
		Short: "Policies in WebAssembly, which judge requests and responses",
		Long: `A plugin is a WebAssembly module that judges requests, responses, or both: it denies, edits, tags, or chooses the model and the
channel. push stores a version of it, and attach says whose exchanges it judges. Those of everybody come first, then those of the
tenant, then those of the key. PLUGIN is an id or a name, VERSION the first digits of a digest, ID that of an attachment.

new, build, test, bench and inspect are for those who write plugins: they work on files, and need no running Weir.`,
	}
	c.AddCommand(pluginPush(), pluginList(), pluginShow(), pluginAttach(), pluginSet(), pluginDetach(), pluginRollBack(), pluginDelete())
	c.AddCommand(pluginAuthorCommands()...)
	return c
}

// short is how a digest is shown where there is little room.
func short(digest string) string { return digest[:min(len(digest), 12)] }

func ownerOf(tenant *string) string {
	if tenant == nil {
		return "all"
	}
	return *tenant
}

func pluginPush() *cobra.Command {
	var name, tenant string
	c := &cobra.Command{
		Use:   "push FILE|https://...#sha256=DIGEST|oci://HOST/PATH:TAG [--name NAME] [--tenant TENANT]",
		Short: "Store a version of a plugin",
		Long: `Store a version of a plugin. Weir loads it first, and stores nothing that does not work. Where it is attached nothing changes:
weir plugin set ID --version puts the new version in force there.

A module from a URL needs its SHA-256. From a registry come artifacts and images in the layouts of Istio, Envoy Gateway and Higress,
with the credentials of docker login. The name, without --name, is the last part of the source.`,
		Example: `  weir plugin push guard.wasm
  weir plugin push oci://registry.example.com/plugins/guard:1.2 --tenant acme
  weir plugin push 'https://example.com/guard.wasm#sha256=6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b'`,
		Args: arguments("SOURCE"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			wasm, err := fetch.Module(c.Context(), args[0], fetch.Options{})
			if e, ok := errors.AsType[*fetch.Error](err); ok {
				if e.Hint == "" {
					return err
				}
				return withHint(err, "%s", e.Hint)
			}
			if err != nil {
				return err
			}
			if name == "" {
				name = fetch.Name(args[0])
			}
			p, err := client.PushPlugin(c.Context(), name, tenant, wasm)
			if err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, p)
			}
			v := p.Versions[0]
			err = printThing(c, p, []fact{
				{"id", count(p.ID)},
				{"name", p.Name},
				{"tenant", ownerOf(p.Tenant)},
				{"version", v.Digest},
				{"size", count(v.Size)},
				{"about", aboutOf(v)},
			})
			if p.Attached == 0 {
				remark(c, "%s", howToAttach(p, wasm))
			} else {
				remark(c, "\nIt is not in force yet: weir plugin show %s, then weir plugin set ID --version %s", p.Name, short(v.Digest))
			}
			return err
		},
	}
	c.Flags().StringVar(&name, "name", "", "the `NAME` of the plugin, which is made if there is none")
	c.Flags().StringVar(&tenant, "tenant", "", "the `TENANT` that it belongs to, and may be attached to alone (default: the operator's own)")
	return c
}

// howToAttach says what to do next with a plugin that is new; its last line is a command.
func howToAttach(p admin.Plugin, wasm []byte) string {
	schema, config := "", ""
	if s := p.Versions[0].Schema; len(s) > 0 && string(s) != "null" {
		schema, config = fmt.Sprintf("\nIt takes a configuration: weir plugin show %s has its schema.", p.Name), " --config JSON"
	}
	return fmt.Sprintf("%s\nIt judges nothing yet: weir plugin attach %s%s%s", schema, p.Name, grantsOf(wasm), config)
}

// grantsOf is the flag by which a module is granted what it cannot do without; empty if there is nothing.
func grantsOf(wasm []byte) string {
	var names []string
	for _, n := range trial.Needs(wasm) {
		names = append(names, string(n))
	}
	if len(names) == 0 {
		return ""
	}
	return " --grant " + strings.Join(names, ",")
}

// aboutOf says what a module says of itself: its name, version and description, as far as it has them.
func aboutOf(v admin.PluginVersion) string {
	var about struct{ Name, Version, Description string }
	if json.Unmarshal(v.About, &about) != nil {
		return "" // whatever it is, it is no object with these texts
	}
	text := strings.TrimSpace(about.Name + " " + about.Version)
	if text != "" && about.Description != "" {
		text += ": "
	}
	return text + about.Description
}

func pluginList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the plugins",
		Long:  "List the plugins, oldest first.",
		Args:  arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			all, err := client.Plugins(c.Context())
			if err != nil {
				return err
			}
			return printList(c, all, "There is no plugin yet. Store one: weir plugin push FILE",
				[]string{"ID", "NAME", "TENANT", "LATEST", "VERSIONS", "ATTACHED", "ABOUT", "PUSHED"},
				func(p admin.Plugin) []string {
					row := []string{count(p.ID), p.Name, ownerOf(p.Tenant), "", count(int64(len(p.Versions))), count(int64(p.Attached)), "", ""}
					if len(p.Versions) > 0 {
						v := p.Versions[0]
						row[3], row[6], row[7] = short(v.Digest), aboutOf(v), age(v.Pushed)
					}
					return row
				})
		},
	}
}

// shownPlugin is what weir plugin show prints as JSON.
type shownPlugin struct {
	admin.Plugin
	Attachments []admin.Attachment `json:"attachments"`
}

func pluginShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show PLUGIN",
		Short: "Show a plugin, its versions, and where it is attached",
		Long: `Show a plugin, its versions, the schema of its configuration, and where it is attached. A version that failed often and was taken
back is shown with the reason.`,
		Args: arguments("PLUGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			p, err := client.Plugin(c.Context(), args[0])
			if err != nil {
				return err
			}
			attachments, err := client.Attachments(c.Context(), strconv.FormatInt(p.ID, 10))
			if err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, shownPlugin{p, attachments})
			}
			return printPlugin(c, p, attachments)
		},
	}
}

func printPlugin(c *cobra.Command, p admin.Plugin, attachments []admin.Attachment) error {
	facts := []fact{{"id", count(p.ID)}, {"name", p.Name}, {"tenant", ownerOf(p.Tenant)}, {"created", timeAndAge(p.Created)}}
	if len(p.Versions) > 0 {
		facts = append(facts, fact{"about", aboutOf(p.Versions[0])}, fact{"schema", compact(p.Versions[0].Schema)})
	}
	err := printThing(c, p, facts)
	out := c.OutOrStdout()
	fmt.Fprintln(out)
	versions := table{header: []string{"VERSION", "SIZE", "ABOUT", "PUSHED"}}
	for _, v := range p.Versions {
		versions.add(short(v.Digest), count(v.Size), aboutOf(v), age(v.Pushed))
	}
	err = errors.Join(err, versions.print(c))
	if len(attachments) == 0 {
		remark(c, "\nIt is attached nowhere: weir plugin attach %s", p.Name)
		return err
	}
	fmt.Fprintln(out)
	places := table{header: []string{"ID", "FOR", "VERSION", "PLACE", "MODE", "STATE", "SINCE"}}
	for _, a := range attachments {
		places.add(count(a.ID), scope(a), short(a.Digest), count(int64(a.Place)), a.Mode, attachmentState(a), age(a.Swapped))
	}
	err = errors.Join(err, places.print(c))
	for _, a := range attachments {
		if a.RolledBack != nil {
			fmt.Fprintf(out, "\n%d was rolled back from %s, %s: %s\n", a.ID, short(a.RolledBack.From), age(a.RolledBack.At), printable(a.RolledBack.Why))
		}
	}
	return err
}

// compact is JSON on one line; nothing for null.
func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if string(raw) == "null" || json.Compact(&b, raw) != nil {
		return ""
	}
	return b.String()
}

func pluginDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete PLUGIN",
		Short: "Delete a plugin that is attached nowhere",
		Long:  "Delete a plugin with all its versions. It must be attached nowhere: weir plugin detach.",
		Args:  arguments("PLUGIN"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connect(c)
			if err != nil {
				return err
			}
			if err := client.DeletePlugin(c.Context(), args[0]); err != nil {
				return err
			}
			if asJSON(c) {
				return printJSON(c, map[string]string{"deleted": args[0]})
			}
			remark(c, "Plugin %s is deleted.", args[0])
			return nil
		},
	}
}
