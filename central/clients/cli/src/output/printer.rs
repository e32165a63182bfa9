//! One result in the format that was asked for.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::table::Drawing;
use super::{Column, Console, OutputError, Text};

/// How a result is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns or labelled lines, for people.
    #[default]
    Table,
    /// The same with more columns.
    Wide,
    /// JSON, exactly as the API gives it.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// `-o` of a command that shows one thing.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OutputArgs {
    /// How to show it: table, wide, json, yaml or name
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t, hide_possible_values = true)]
    pub(crate) output: Format,
}

/// `-o` and `--no-headers` of a command that shows a list.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) format: OutputArgs,
    /// Leave the titles of the columns out
    #[arg(long)]
    pub(crate) no_headers: bool,
}

/// How one kind of thing stands in a list.
pub(crate) struct Listing<'a, T> {
    /// Every column, the wide ones too.
    pub(crate) columns: &'a [Column],
    /// All cells of one row.
    pub(crate) row: &'a dyn Fn(&T) -> Vec<Text>,
    /// The name that other commands take.
    pub(crate) name: &'a dyn Fn(&T) -> String,
    /// Said (on standard error) of an empty list.
    pub(crate) empty: &'a str,
}

/// Shows results on a console.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer<'a> {
    /// Where to.
    pub(crate) console: &'a Console,
    /// How.
    pub(crate) format: Format,
    has_header: bool,
}

impl<'a> Printer<'a> {
    /// For one thing.
    pub(crate) fn new(console: &'a Console, args: OutputArgs) -> Self {
        Self { console, format: args.output, has_header: true }
    }

    /// For a list.
    pub(crate) fn list(console: &'a Console, args: ListArgs) -> Self {
        Self { console, format: args.format.output, has_header: !args.no_headers }
    }

    /// How a table of this result is drawn.
    pub(crate) fn drawing(&self) -> Drawing {
        Drawing::new(self.console, self.format == Format::Wide, self.has_header)
    }

    /// Shows a list; JSON and YAML are one array.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn items<T: Serialize>(&self, items: &[T], listing: &Listing<'_, T>) -> Result<(), OutputError> {
        match self.format {
            Format::Json | Format::Yaml => self.data(&items),
            Format::Name => items.iter().try_for_each(|item| self.console.line(&(listing.name)(item))),
            Format::Table | Format::Wide if items.is_empty() => {
                self.console.note(listing.empty);
                Ok(())
            }
            Format::Table | Format::Wide => {
                let rows = items.iter().map(listing.row).collect();
                self.console.line(&self.drawing().draw(listing.columns, rows).0)
            }
        }
    }

    /// Shows one thing: `text` for people, `name` for scripts.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn one<T: Serialize>(
        &self,
        item: &T,
        name: &str,
        text: impl FnOnce() -> String,
    ) -> Result<(), OutputError> {
        match self.format {
            Format::Json | Format::Yaml => self.data(item),
            Format::Name => self.console.line(name),
            Format::Table | Format::Wide => self.console.line(&text()),
        }
    }

    /// Whether programs read the result.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Shows a value as JSON or YAML.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn data<T: Serialize>(&self, value: &T) -> Result<(), OutputError> {
        let text = match self.format {
            Format::Yaml => to_yaml(value)?,
            _ => serde_json::to_string_pretty(value)
                .map_err(|error| OutputError::Encode { format: "json", problem: error.to_string() })?,
        };
        self.console.line(text.trim_end())
    }

    /// Shows a value as one line of JSON, or one YAML document of a stream.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub(crate) fn stream_item<T: Serialize>(&self, value: &T) -> Result<(), OutputError> {
        let text = match self.format {
            Format::Yaml => format!("---\n{}", to_yaml(value)?),
            _ => serde_json::to_string(value)
                .map_err(|error| OutputError::Encode { format: "json", problem: error.to_string() })?,
        };
        self.console.line(text.trim_end())
    }
}

fn to_yaml<T: Serialize>(value: &T) -> Result<String, OutputError> {
    serde_saphyr::to_string(value).map_err(|error| OutputError::Encode { format: "yaml", problem: error.to_string() })
}
