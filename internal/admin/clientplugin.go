// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Plugins returns all plugins.
func (c *Client) Plugins(ctx context.Context) ([]Plugin, error) {
	l, err := get[List[Plugin]](ctx, c, "/api/v1/plugins")
	return l.Items, err
}

// Plugin returns the plugin that ref, an id or a name, means.
func (c *Client) Plugin(ctx context.Context, ref string) (Plugin, error) {
	return get[Plugin](ctx, c, pathOf("plugin", ref))
}

// PushPlugin makes a module the latest version of a plugin, and the plugin if there is none of the name. A tenant, which may be empty, says whose it is.
func (c *Client) PushPlugin(ctx context.Context, name, tenant string, wasm []byte) (Plugin, error) {
	path := pathOf("plugin", name)
	if tenant != "" {
		path += "?" + url.Values{"tenant": {tenant}}.Encode()
	}
	return compile[Plugin](ctx, c, toCompile{http.MethodPut, path, moduleType, wasm})
}

// DeletePlugin deletes a plugin that is not attached.
func (c *Client) DeletePlugin(ctx context.Context, ref string) error {
	return c.do(ctx, http.MethodDelete, pathOf("plugin", ref), nil, nil)
}

// Attachments returns all attachments, of one plugin when ref is not empty.
func (c *Client) Attachments(ctx context.Context, plugin string) ([]Attachment, error) {
	path := "/api/v1/attachments"
	if plugin != "" {
		path += "?" + url.Values{"plugin": {plugin}}.Encode()
	}
	l, err := get[List[Attachment]](ctx, c, path)
	return l.Items, err
}

// Attachment returns one attachment.
func (c *Client) Attachment(ctx context.Context, id int64) (Attachment, error) {
	return get[Attachment](ctx, c, attachmentPath(id))
}

func attachmentPath(id int64) string { return pathOf("attachment", strconv.FormatInt(id, 10)) }

// Attach attaches a plugin.
func (c *Client) Attach(ctx context.Context, n NewAttachment) (Attachment, error) {
	b, err := json.Marshal(n)
	if err != nil {
		return Attachment{}, fmt.Errorf("encode the request: %w", err)
	}
	return compile[Attachment](ctx, c, toCompile{http.MethodPost, "/api/v1/attachments", "application/json", b})
}

// SetAttachment changes an attachment.
func (c *Client) SetAttachment(ctx context.Context, id int64, ch AttachmentChange) (Attachment, error) {
	b, err := json.Marshal(ch)
	if err != nil {
		return Attachment{}, fmt.Errorf("encode the request: %w", err)
	}
	return compile[Attachment](ctx, c, toCompile{http.MethodPatch, attachmentPath(id), "application/json", b})
}

// Detach deletes an attachment.
func (c *Client) Detach(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodDelete, attachmentPath(id), nil, nil)
}

// RollBack puts the version before in force, with the configuration that it had.
func (c *Client) RollBack(ctx context.Context, id int64, why string) (Attachment, error) {
	return send[Attachment](ctx, c, http.MethodPost, attachmentPath(id)+"/rollback", NewRollBack{Why: why})
}

// toCompile is a request that makes the server compile a module.
type toCompile struct {
	method, path, contentType string
	body                      []byte
}

// compile sends a request and waits longer than for others.
func compile[T any](ctx context.Context, c *Client, r toCompile) (T, error) {
	var out T
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return out, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Content-Type", r.contentType)
	err = c.send(c.slow, req, &out)
	return out, err
}
