// SPDX-License-Identifier: Apache-2.0

//! What a plugin is given: views of the host's messages, read where they are.

/// The fields of a message: tag and value.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(8)?;
        let tag = u32::from_le_bytes(head[..4].try_into().ok()?);
        let len = u32::from_le_bytes(head[4..].try_into().ok()?) as usize;
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }
}

impl<'a> Fields<'a> {
    /// The fields of a message.
    pub fn new(message: &'a [u8]) -> Self {
        Fields(message)
    }

    /// The first field with this tag; empty if there is none.
    pub fn bytes(self, tag: u32) -> &'a [u8] {
        self.all(tag).next().unwrap_or(&[])
    }

    /// The first field with this tag, as text.
    pub fn text(self, tag: u32) -> &'a str {
        core::str::from_utf8(self.bytes(tag)).unwrap_or("")
    }

    /// The first field with this tag, as a number, if there is one.
    pub fn number(self, tag: u32) -> Option<i64> {
        Some(i64::from_le_bytes(self.bytes(tag).try_into().ok()?))
    }

    /// All fields with this tag, in order.
    pub fn all(self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        self.filter(move |f| f.0 == tag).map(|f| f.1)
    }
}

/// A text of a request that can be edited.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub id: i64,
    pub text: &'a str,
}

impl<'a> Text<'a> {
    fn new(b: &'a [u8]) -> Self {
        let f = Fields(b);
        // SAFETY: the host has looked at each string of the body, and hands in no text that is not UTF-8 (ABI.md, section 2). These are all that is long in a
        // message: to look again would take a tenth of a plugin's time.
        let text = unsafe { core::str::from_utf8_unchecked(f.bytes(2)) };
        Text { id: f.number(1).unwrap_or(0), text }
    }

    /// Where a word first stands in the text, in bytes: [`crate::find`], which is much faster here than that of the standard library.
    pub fn find(&self, word: &str) -> Option<usize> {
        crate::find(self.text, word)
    }

    /// Whether a word stands in the text.
    pub fn contains(&self, word: &str) -> bool {
        crate::contains(self.text, word)
    }
}

/// A header field.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// A function that the model may call.
#[derive(Clone, Copy)]
pub struct Tool<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub parameters: &'a str,
}

/// A call that the model made earlier in the conversation.
#[derive(Clone, Copy)]
pub struct ToolCall<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub arguments: Text<'a>,
}

/// A turn of the conversation.
#[derive(Clone, Copy)]
pub struct Message<'a>(Fields<'a>);

impl<'a> Message<'a> {
    pub fn role(&self) -> &'a str {
        self.0.text(1)
    }
    pub fn name(&self) -> &'a str {
        self.0.text(2)
    }
    pub fn texts(&self) -> impl Iterator<Item = Text<'a>> {
        self.0.all(3).map(Text::new)
    }
    pub fn calls(&self) -> impl Iterator<Item = ToolCall<'a>> {
        self.0.all(4).map(|b| {
            let f = Fields(b);
            ToolCall { id: f.text(1), name: f.text(2), arguments: Text::new(f.bytes(3)) }
        })
    }
    /// The kind of each part that is not text: `image`, `audio`, `file`.
    pub fn media(&self) -> impl Iterator<Item = &'a str> {
        self.0.all(5).map(|b| core::str::from_utf8(b).unwrap_or(""))
    }
    /// The id of the tool call that this answers.
    pub fn answers(&self) -> &'a str {
        self.0.text(6)
    }
}

macro_rules! common {
    ($t:ident) => {
        impl<'a> $t<'a> {
            #[doc(hidden)]
            pub fn new(b: &'a [u8]) -> Self {
                $t(Fields(b))
            }
            /// The fields themselves, for those that this version has no name for.
            pub fn fields(&self) -> Fields<'a> {
                self.0
            }
            pub fn id(&self) -> &'a str {
                self.0.text(1)
            }
            pub fn tenant(&self) -> i64 {
                self.0.number(2).unwrap_or(0)
            }
            pub fn tenant_name(&self) -> &'a str {
                self.0.text(3)
            }
            pub fn key(&self) -> i64 {
                self.0.number(4).unwrap_or(0)
            }
            pub fn key_name(&self) -> &'a str {
                self.0.text(5)
            }
            /// The client's IP address.
            pub fn address(&self) -> &'a str {
                self.0.text(6)
            }
            pub fn operation(&self) -> &'a str {
                self.0.text(7)
            }
            pub fn model(&self) -> &'a str {
                self.0.text(8)
            }
            pub fn headers(&self) -> impl Iterator<Item = Header<'a>> {
                self.0.all(13).map(|b| Header { name: Fields(b).text(1), value: Fields(b).text(2) })
            }
            /// What the verdict before gave as its state.
            pub fn state(&self) -> &'a [u8] {
                self.0.bytes(18)
            }
        }
    };
}

/// A request.
#[derive(Clone, Copy)]
pub struct Exchange<'a>(Fields<'a>);

common!(Exchange);

impl<'a> Exchange<'a> {
    pub fn stream(&self) -> bool {
        self.0.number(9) == Some(1)
    }
    pub fn max_output_tokens(&self) -> Option<i64> {
        self.0.number(11)
    }
    /// How many answers the client makes the model write: the larger of n and best_of, and 1 if it does not say.
    pub fn choices(&self) -> i64 {
        self.0.number(19).unwrap_or(1).max(1)
    }
    /// Nano-dollars that are left to the key, if it has a budget.
    pub fn budget_left(&self) -> Option<i64> {
        self.0.number(12)
    }
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> {
        self.0.all(14).map(|b| Message(Fields(b)))
    }
    /// The texts of all messages.
    pub fn texts(&self) -> impl Iterator<Item = Text<'a>> {
        self.messages().flat_map(|m| m.0.all(3).map(Text::new))
    }
    pub fn tools(&self) -> impl Iterator<Item = Tool<'a>> {
        self.0.all(15).map(|b| {
            let f = Fields(b);
            Tool { name: f.text(1), description: f.text(2), parameters: f.text(3) }
        })
    }
    /// Channels that may serve the model, best first.
    pub fn channels(&self) -> impl Iterator<Item = &'a str> {
        self.0.all(16).map(|b| core::str::from_utf8(b).unwrap_or(""))
    }
    /// The client's body, if the operator lets the plugin see it.
    pub fn body(&self) -> &'a [u8] {
        self.0.bytes(17)
    }
}

/// What an event tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Head,
    Text,
    ToolCall,
    Finish,
    Usage,
    End,
    /// One of a later version: go on.
    Other,
}

/// What the provider counted; cached and reasoning tokens are included in input and output.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub input: i64,
    pub cached: i64,
    pub output: i64,
    pub reasoning: i64,
}

/// A part of a response.
#[derive(Clone, Copy)]
pub struct Event<'a>(Fields<'a>);

common!(Event);

impl<'a> Event<'a> {
    pub fn kind(&self) -> Kind {
        match self.0.number(32) {
            Some(1) => Kind::Head,
            Some(2) => Kind::Text,
            Some(3) => Kind::ToolCall,
            Some(4) => Kind::Finish,
            Some(5) => Kind::Usage,
            Some(6) => Kind::End,
            _ => Kind::Other,
        }
    }
    pub fn choice(&self) -> i64 {
        self.0.number(33).unwrap_or(0)
    }
    /// Which text of the choice it is, with Kind::Text and Kind::Finish: content, refusal, reasoning or summary, and its number among those of that name.
    /// A host that does not say leaves it empty.
    pub fn part(&self) -> (&'a str, i64) {
        let f = Fields(self.0.bytes(39));
        (f.text(1), f.number(2).unwrap_or(0))
    }
    /// What is new; text 0 in edits.
    pub fn text(&self) -> &'a str {
        self.0.text(34)
    }
    /// The number of the tool call in the choice.
    pub fn tool_number(&self) -> i64 {
        Fields(self.0.bytes(35)).number(1).unwrap_or(0)
    }
    /// With the first event of a tool call: its id and name.
    pub fn tool(&self) -> (&'a str, &'a str) {
        let f = Fields(self.0.bytes(35));
        (f.text(2), f.text(3))
    }
    pub fn status(&self) -> i64 {
        self.0.number(36).unwrap_or(0)
    }
    pub fn reason(&self) -> &'a str {
        self.0.text(37)
    }
    pub fn usage(&self) -> Usage {
        let f = Fields(self.0.bytes(38));
        let n = |tag| f.number(tag).unwrap_or(0);
        Usage { input: n(1), cached: n(2), output: n(3), reasoning: n(4) }
    }
}
