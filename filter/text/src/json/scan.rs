//! The text itself: JSON from front to back, one value at a time.
//!
//! `serde_json` reads the same language and was here before. Its generic code, with a number that becomes a
//! `f64` and back, was a tenth of the module, and the module is compiled in every worker. What is JSON is
//! still not our own opinion: the tests hold this reader against `serde_json`, text by text and message by
//! message.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

mod number;
#[cfg(test)]
mod tests;

pub(crate) use self::number::Number;

/// A place in a JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    /// The same, if it is UTF-8: to look at all of it once costs less than at each of its strings.
    utf8: Option<&'a str>,
    at: usize,
}

/// The beginning of a value, or all of it.
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(Cow<'a, str>),
    /// Go on with [`Scanner::element`].
    Array,
    /// Go on with [`Scanner::key`].
    Object,
}

/// Where a text stops being JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    what: &'static str,
    at: usize,
}

/// Bytes of a string up to its end, an escape, or what may not stand in it.
///
/// A QR is 16 KiB of one string, so eight at a time.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut at = 0_usize;
    for chunk in chunks {
        let chars = u64::from_le_bytes(*chunk);
        // A byte's top bit is set where the byte is 0 after the exclusive or, or below a space. A carry can only
        // come from a lower byte that is one itself, and the lowest is what counts.
        let quote = chars ^ (ONES * b'"' as u64);
        let slash = chars ^ (ONES * b'\\' as u64);
        let found = (chars.wrapping_sub(ONES * b' ' as u64) & !chars)
            | (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash);
        let found = found & (ONES << 7);
        if found != 0 {
            return at.saturating_add((found.trailing_zeros() / 8) as usize);
        }
        at = at.saturating_add(8);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '));
    at.saturating_add(end.unwrap_or(rest.len()))
}

/// A character that may not stand in a string as it is.
fn escape(c: char, out: &mut String) {
    let short = match c {
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\0'..' ' => {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
            return;
        }
        _ => c,
    };
    out.push('\\');
    out.push(short);
}

/// `text` as a JSON string, with its quotes.
#[must_use]
#[inline]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    let mut rest = text;
    while !rest.is_empty() {
        // What it stops at is ASCII, so this is no place within a character.
        let (run, left) = rest
            .split_at_checked(plain(rest.as_bytes()))
            .unwrap_or((rest, ""));
        out.push_str(run);
        let mut left = left.chars();
        if let Some(c) = left.next() {
            escape(c, &mut out);
        }
        rest = left.as_str();
    }
    out.push('"');
    out
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            utf8: core::str::from_utf8(text).ok(),
            at: 0,
        }
    }

    /// The next value: all of it, or its opening bracket.
    pub(crate) fn value(&mut self) -> Result<Token<'a>, Broken> {
        match self.peek_token() {
            None => Err(self.broken("EOF while parsing a value")),
            Some(b'n') => self.word(b"null").map(|()| Token::Null),
            Some(b't') => self.word(b"true").map(|()| Token::Bool(true)),
            Some(b'f') => self.word(b"false").map(|()| Token::Bool(false)),
            Some(b'"') => self.string().map(Token::Text),
            Some(b'[') => {
                self.step();
                Ok(Token::Array)
            }
            Some(b'{') => {
                self.step();
                Ok(Token::Object)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(_) => Err(self.broken("expected value")),
        }
    }

    /// Whether another element of an array follows; behind the last one, the array's end is taken.
    pub(crate) fn element(&mut self, first: bool) -> Result<bool, Broken> {
        match self.peek_token() {
            None => return Err(self.broken("EOF while parsing a list")),
            Some(b']') => {
                self.step();
                return Ok(false);
            }
            Some(_) if first => return Ok(true),
            Some(b',') => self.step(),
            Some(_) => return Err(self.broken("expected `,` or `]`")),
        }
        match self.peek_token() {
            None => Err(self.broken("EOF while parsing a value")),
            Some(b']') => Err(self.broken("trailing comma")),
            Some(_) => Ok(true),
        }
    }

    /// The key of an object's next member, its colon taken; `None` behind the last one.
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Broken> {
        match self.peek_token() {
            None => return Err(self.broken("EOF while parsing an object")),
            Some(b'}') => {
                self.step();
                return Ok(None);
            }
            Some(_) if first => {}
            Some(b',') => {
                self.step();
                match self.peek_token() {
                    None => return Err(self.broken("EOF while parsing a value")),
                    Some(b'}') => return Err(self.broken("trailing comma")),
                    Some(_) => {}
                }
            }
            Some(_) => return Err(self.broken("expected `,` or `}`")),
        }
        if self.peek() != Some(b'"') {
            return Err(self.broken("key must be a string"));
        }
        let key = self.string()?;
        match self.peek_token() {
            None => Err(self.broken("EOF while parsing an object")),
            Some(b':') => {
                self.step();
                Ok(Some(key))
            }
            Some(_) => Err(self.broken("expected `:`")),
        }
    }

    /// Whether the text ends here.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        match self.peek_token() {
            None => Ok(()),
            Some(_) => Err(self.broken("trailing characters")),
        }
    }

    /// Passes over the next value, however deep, and gives its text. What it names and holds need make no
    /// sense: neither is looked at.
    pub(crate) fn skip(&mut self) -> Result<&'a [u8], Broken> {
        let _ = self.peek_token();
        let start = self.at;
        // The closing brackets to come.
        let mut open: Vec<u8> = Vec::new();
        loop {
            let opened = match self.peek_token() {
                Some(bracket @ (b'[' | b'{')) => {
                    self.step();
                    // Both close two further on in ASCII.
                    open.push(bracket.saturating_add(2));
                    true
                }
                Some(b'"') => {
                    self.pass_string()?;
                    false
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.pass_number()?;
                    false
                }
                _ => {
                    self.value()?;
                    false
                }
            };
            if !self.skip_to_value(&mut open, opened)? {
                return Ok(self.text.get(start..self.at).unwrap_or_default());
            }
        }
    }

    /// From behind a value, or an opening bracket, to the next value. Whether there is one.
    fn skip_to_value(&mut self, open: &mut Vec<u8>, opened: bool) -> Result<bool, Broken> {
        let mut first = opened;
        while let Some(close) = open.last().copied() {
            match self.peek_token() {
                Some(byte) if byte == close => {
                    self.step();
                    open.pop();
                    first = false;
                    continue;
                }
                Some(b',') if !first => self.step(),
                Some(_) if first => {}
                _ => return Err(self.broken("expected `,`")),
            }
            if close == b'}' {
                if self.peek_token() != Some(b'"') {
                    return Err(self.broken("key must be a string"));
                }
                self.pass_string()?;
                if self.peek_token() != Some(b':') {
                    return Err(self.broken("expected `:`"));
                }
                self.step();
            }
            return Ok(true);
        }
        Ok(false)
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The first byte that is no white space.
    #[inline(always)]
    fn peek_token(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.step(),
                other => return other,
            }
        }
    }

    /// The byte that is to be read next is wrong, or missing.
    fn broken(&self, what: &'static str) -> Broken {
        Broken {
            what,
            at: self.text.len().min(self.at.saturating_add(1)),
        }
    }

    /// What has just been read is wrong.
    fn broken_before(&self, what: &'static str) -> Broken {
        Broken { what, at: self.at }
    }

    /// The string of `len` bytes that has just been read is UTF-8 up to `valid`; with escapes before that, its
    /// place is approximate.
    fn no_utf8(&self, len: usize, valid: usize) -> Broken {
        Broken {
            what: "invalid unicode code point",
            at: self.at.saturating_sub(len.saturating_sub(valid)),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Broken> {
        for byte in word {
            match self.peek() {
                None => return Err(self.broken("EOF while parsing a value")),
                Some(found) if found == *byte => self.step(),
                Some(_) => return Err(self.broken("expected ident")),
            }
        }
        Ok(())
    }

    // ## Strings

    /// A string, from its opening quote, its escapes resolved.
    fn string(&mut self) -> Result<Cow<'a, str>, Broken> {
        self.step();
        let mut decoded: Vec<u8> = Vec::new();
        let mut escaped = false;
        loop {
            let from = self.at;
            let rest = self.text.get(from..).unwrap_or_default();
            let run = rest.get(..plain(rest)).unwrap_or_default();
            self.at = from.saturating_add(run.len());
            match self.peek() {
                Some(b'"') if !escaped => {
                    let known = self.utf8.and_then(|text| text.get(from..self.at));
                    self.step();
                    return match known.map_or_else(|| core::str::from_utf8(run), Ok) {
                        Ok(text) => Ok(Cow::Borrowed(text)),
                        Err(error) => Err(self.no_utf8(run.len(), error.valid_up_to())),
                    };
                }
                Some(b'"') => {
                    decoded.extend_from_slice(run);
                    self.step();
                    return match String::from_utf8(decoded) {
                        Ok(text) => Ok(Cow::Owned(text)),
                        Err(error) => {
                            let (len, valid) = (error.as_bytes().len(), error.utf8_error());
                            Err(self.no_utf8(len, valid.valid_up_to()))
                        }
                    };
                }
                Some(b'\\') => {
                    escaped = true;
                    decoded.extend_from_slice(run);
                    let c = self.escape()?;
                    decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(_) => {
                    return Err(self.broken(
                        "control character (\\u0000-\\u001F) found while parsing a string",
                    ));
                }
                None => return Err(self.broken("EOF while parsing a string")),
            }
        }
    }

    /// Passes over a string; an unpaired surrogate in it is no matter.
    fn pass_string(&mut self) -> Result<(), Broken> {
        self.step();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.at = self.at.saturating_add(plain(rest));
            match self.peek() {
                Some(b'"') => {
                    self.step();
                    return Ok(());
                }
                Some(b'\\') => {
                    self.step();
                    self.short_escape()?;
                }
                _ => return Err(self.broken("EOF while parsing a string")),
            }
        }
    }

    /// What stands behind a backslash, but for a surrogate's other half.
    fn short_escape(&mut self) -> Result<u32, Broken> {
        let c = match self.peek() {
            None => return Err(self.broken("EOF while parsing a string")),
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.step();
                return self.hex();
            }
            Some(_) => return Err(self.broken("invalid escape")),
        };
        self.step();
        Ok(u32::from(c))
    }

    fn hex(&mut self) -> Result<u32, Broken> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let Some(digits) = rest.get(..4) else {
            self.at = self.text.len();
            return Err(self.broken("EOF while parsing a string"));
        };
        self.at = self.at.saturating_add(4);
        digits
            .iter()
            .try_fold(0, |code, digit| {
                Some(code << 4 | char::from(*digit).to_digit(16)?)
            })
            .ok_or_else(|| self.broken_before("invalid escape"))
    }

    /// An escape, from its backslash.
    fn escape(&mut self) -> Result<char, Broken> {
        const LONE: &str = "lone leading surrogate in hex escape";
        self.step();
        let high = self.short_escape()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(|| self.broken_before(LONE));
        }
        for byte in b"\\u" {
            match self.peek() {
                None => return Err(self.broken("EOF while parsing a string")),
                Some(found) if found == *byte => self.step(),
                Some(_) => return Err(self.broken("unexpected end of hex escape")),
            }
        }
        let low = self.hex()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(self.broken_before(LONE));
        }
        let code = ((high & 0x3ff) << 10 | (low & 0x3ff)).saturating_add(0x1_0000);
        char::from_u32(code).ok_or_else(|| self.broken_before(LONE))
    }
}

// === impl Broken ===

impl Broken {
    /// Nested beyond what its reader takes.
    pub(crate) fn too_deep(scanner: &Scanner<'_>) -> Self {
        scanner.broken_before("recursion limit exceeded")
    }

    pub(crate) fn not_an_object(scanner: &Scanner<'_>) -> Self {
        scanner.broken_before("expected an object")
    }

    /// For a person, with the line and the column.
    #[must_use]
    pub fn describe(self, text: &[u8]) -> String {
        let before = text.get(..self.at).unwrap_or_default();
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        let column = before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        let line = lines.saturating_add(1);
        format!("{} at line {line} column {column}", self.what)
    }
}
