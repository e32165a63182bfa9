//! Details of one thing: a title, then labelled lines.

use super::{Console, Text};

/// Labelled lines, collected before they are aligned.
#[derive(Debug, Default)]
pub(crate) struct Card {
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Field(String, Text),
    Section(String),
    Plain(String),
}

impl Card {
    /// An empty card.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds `label: text`; nothing for an empty text.
    pub(crate) fn field(&mut self, label: &str, text: impl Into<Text>) -> &mut Self {
        let text = text.into();
        if !text.text.is_empty() {
            self.lines.push(Line::Field(label.into(), text));
        }
        self
    }

    /// Begins a part with a title of its own.
    pub(crate) fn section(&mut self, title: &str) -> &mut Self {
        self.lines.push(Line::Section(title.into()));
        self
    }

    /// Adds lines that are aligned already, indented.
    pub(crate) fn block(&mut self, text: &str) -> &mut Self {
        self.lines.extend(text.lines().map(|line| Line::Plain(format!("  {line}"))));
        self
    }

    /// The card as text.
    pub(crate) fn draw(&self, console: &Console) -> String {
        let has_colour = console.colours_results();
        let width = self.lines.iter().filter_map(Line::label).map(|label| label.chars().count()).max().unwrap_or(0) + 2;
        let line = |line: &Line| match line {
            Line::Field(label, text) => {
                format!("{:width$}{}", format!("{label}:"), text.tone.paint(&text.text, has_colour))
            }
            Line::Section(title) => format!("{title}:"),
            Line::Plain(text) => text.clone(),
        };
        self.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Line {
    fn label(&self) -> Option<&str> {
        match self {
            Self::Field(label, _) => Some(label),
            Self::Section(_) | Self::Plain(_) => None,
        }
    }
}
