// SPDX-License-Identifier: Apache-2.0

//! What a plugin answers.

/// An answer. Methods add to it and return it.
#[derive(Default)]
pub struct Verdict(Vec<u8>);

fn bytes(to: &mut Vec<u8>, tag: u32, value: &[u8]) {
    to.extend_from_slice(&tag.to_le_bytes());
    to.extend_from_slice(&(value.len() as u32).to_le_bytes());
    to.extend_from_slice(value);
}

fn number(to: &mut Vec<u8>, tag: u32, value: i64) {
    bytes(to, tag, &value.to_le_bytes());
}

impl Verdict {
    /// Go on, with nothing changed.
    pub fn go_on() -> Self {
        Verdict(Vec::new())
    }

    /// Refuse, with a status from 400 to 599, a code of `a-z0-9_` and a sentence for the client. On an event: end the response here.
    pub fn deny(status: u16, code: &str, message: &str) -> Self {
        let mut denial = Vec::new();
        number(&mut denial, 1, status.into());
        bytes(&mut denial, 2, code.as_bytes());
        bytes(&mut denial, 3, message.as_bytes());
        let mut v = Vec::new();
        number(&mut v, 1, 1);
        bytes(&mut v, 2, &denial);
        Verdict(v)
    }

    /// Keep an event (text or tool call) from the client.
    pub fn drop_event() -> Self {
        let mut v = Vec::new();
        number(&mut v, 1, 2);
        Verdict(v)
    }

    /// Put `with` in the place of bytes `start..end` of a text. The text of an event has id 0.
    pub fn edit(mut self, text: i64, start: usize, end: usize, with: &str) -> Self {
        let mut e = Vec::with_capacity(64 + with.len());
        number(&mut e, 1, text);
        number(&mut e, 2, start as i64);
        number(&mut e, 3, end as i64);
        bytes(&mut e, 4, with.as_bytes());
        bytes(&mut self.0, 3, &e);
        self
    }

    fn pair(mut self, tag: u32, first: &str, second: &str) -> Self {
        let mut p = Vec::with_capacity(16 + first.len() + second.len());
        bytes(&mut p, 1, first.as_bytes());
        bytes(&mut p, 2, second.as_bytes());
        bytes(&mut self.0, tag, &p);
        self
    }

    /// Set a header, its name in lower case.
    pub fn set_header(self, name: &str, value: &str) -> Self {
        self.pair(4, name, value)
    }

    /// Remove a header.
    pub fn remove_header(mut self, name: &str) -> Self {
        bytes(&mut self.0, 5, name.as_bytes());
        self
    }

    /// Ask for another model.
    pub fn model(mut self, model: &str) -> Self {
        bytes(&mut self.0, 6, model.as_bytes());
        self
    }

    /// Try this channel; the first call names the first to try. Channels that are not named are not tried.
    pub fn channel(mut self, channel: &str) -> Self {
        bytes(&mut self.0, 7, channel.as_bytes());
        self
    }

    /// Put a tag on the usage row.
    pub fn tag(self, name: &str, value: &str) -> Self {
        self.pair(8, name, value)
    }

    /// Hand up to 4 KiB to the next call of this exchange.
    pub fn state(mut self, state: &[u8]) -> Self {
        bytes(&mut self.0, 9, state);
        self
    }

    /// Add a message before the one with this number.
    pub fn insert(mut self, before: i64, role: &str, text: &str) -> Self {
        let mut i = Vec::new();
        number(&mut i, 1, before);
        bytes(&mut i, 2, role.as_bytes());
        bytes(&mut i, 3, text.as_bytes());
        bytes(&mut self.0, 10, &i);
        self
    }

    /// Let the answer have at most so many tokens.
    pub fn max_output_tokens(mut self, most: i64) -> Self {
        number(&mut self.0, 11, most);
        self
    }

    #[doc(hidden)]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
