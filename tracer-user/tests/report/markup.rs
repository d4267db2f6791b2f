//! The page as an HTML parser reads it: a browser takes for markup what this does.

use std::cell::RefCell;
use std::collections::BTreeSet;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts, states,
};

use super::fixture::hostile;
use tracer_user::export::report::html;
use tracer_user::ui::escape;

/// Elements, attributes and text of a page.
#[derive(Debug, Default)]
pub struct Markup {
    /// Names of elements.
    pub elements: BTreeSet<String>,
    /// `element@attribute`.
    pub attributes: BTreeSet<String>,
    /// Values of attributes that lead somewhere.
    pub links: BTreeSet<String>,
    /// Places that links may lead to.
    pub ids: BTreeSet<String>,
    /// All text, without the style sheet.
    pub text: String,
}

impl Markup {
    pub fn of(page: &str) -> Self {
        let tokenizer = Tokenizer::new(Sink(RefCell::default()), TokenizerOpts::default());
        let queue = BufferQueue::default();
        queue.push_back(StrTendril::from(page));
        let _ended = tokenizer.feed(&queue);
        tokenizer.end();
        tokenizer.sink.0.into_inner()
    }

    fn open(&mut self, tag: &Tag) {
        self.elements.insert(tag.name.to_string());
        for attribute in &tag.attrs {
            let name = attribute.name.local.to_string();
            self.attributes.insert(format!("{}@{name}", tag.name));
            if name == "id" {
                self.ids.insert(attribute.value.to_string());
            }
            if ["href", "src", "action", "data", "style", "xlink:href"].contains(&name.as_str()) {
                self.links.insert(attribute.value.to_string());
            }
        }
    }
}

struct Sink(RefCell<Markup>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut markup = self.0.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                markup.open(&tag);
                if &*tag.name == "style" {
                    return TokenSinkResult::RawData(states::RawKind::Rawtext);
                }
            }
            Token::CharacterTokens(text) => markup.text.push_str(&text),
            Token::NullCharacterToken => panic!("NUL in the page"),
            Token::CommentToken(text) => panic!("a comment in the page: {text}"),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// Every string of the snapshot is hostile: the page has the same elements and attributes as that of a harmless one,
/// and shows the string.
#[track_caller]
fn check(name: &str) {
    let (harmless, page) = (Markup::of(&html(&hostile("name")).unwrap()), html(&hostile(name)).unwrap());
    let markup = Markup::of(&page);
    assert_eq!(markup.elements, harmless.elements, "{name:?}");
    assert_eq!(markup.attributes, harmless.attributes, "{name:?}");
    assert_eq!(markup.links, harmless.links, "{name:?}");
    let seen: String = escape(name).chars().take(100).collect();
    assert!(markup.text.matches(&seen).count() > 50, "{seen:?} is not shown");
    let raw = |c: char| c != '\n' && escape(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8();
    assert_eq!(page.find(raw), None, "{name:?}");
}

#[test]
fn hostile_names_are_text() {
    for name in [
        "<script>alert(1)</script>",
        "</style></title><img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "' style='background:url(//evil.example)'",
        "<!-- ]]> <![CDATA[ <?php",
        "&lt;b&gt; &amp; &#x3c;script&#62;",
        "{{ 7 * 7 }} {% include \"/etc/passwd\" %} {# x #}",
        "javascript:alert(1)",
        "a\u{202e}b\u{2066}c\u{200b}d\u{feff}",
        "nul\0 esc\u{1b}[31m bell\u{7} c1\u{9b} line\nfeed\rtab\t",
        "\u{fffd}\u{fffd} damaged",
        "</svg></main></body></html><iframe srcdoc=x>",
    ] {
        check(name);
    }
    check(&"<b>".repeat(3_400));
    check(&"é".repeat(5_000));
}

#[test]
fn nothing_in_the_page_is_live_or_elsewhere() {
    let markup = Markup::of(&html(&super::incident()).unwrap());
    for banned in ["script", "iframe", "object", "embed", "form", "img", "base", "foreignobject", "image", "use"] {
        assert!(!markup.elements.contains(banned), "{banned}");
    }
    let handlers: Vec<&String> = markup.attributes.iter().filter(|it| it.contains("@on")).collect();
    assert!(handlers.is_empty(), "{handlers:?}");
    assert!(markup.links.iter().all(|link| link.starts_with('#') || link == "data:,"), "{:?}", markup.links);
}
