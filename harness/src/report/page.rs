//! The page: sections of pictures and tables, in one file that needs nothing from anywhere.

use std::fmt::Write as _;

use super::chart;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem}\
svg{max-width:100%;height:auto;margin:.5rem 0}\
table{border-collapse:collapse;margin:1rem 0}\
th,td{padding:.2rem .8rem;border-bottom:1px solid #8886;text-align:right}\
th:first-child,td:first-child{text-align:left}";

/// A page that grows.
#[derive(Debug, Default)]
pub(super) struct Page {
    body: String,
}

/// A table: its header, and its rows, each of a name and figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

// === impl Page ===

impl Page {
    pub(super) fn section(&mut self, title: &str, text: &str) {
        self.push(format_args!(
            "<h2>{}</h2>\n<p>{}</p>\n",
            escaped(title),
            escaped(text)
        ));
    }

    /// The name of a part of a section; none is needed where there is one part only.
    pub(super) fn heading(&mut self, name: &str) {
        if !name.is_empty() {
            self.push(format_args!("<h3>{}</h3>\n", escaped(name)));
        }
    }

    /// What there is to see; nothing where there is nothing.
    pub(super) fn picture(&mut self, svg: Option<String>) {
        self.body.push_str(&svg.unwrap_or_default());
    }

    pub(super) fn table(&mut self, table: &Table) {
        if table.rows.is_empty() {
            return;
        }
        let row = |cells: &[String], tag: &str| -> String {
            let cell = |text: &String| format!("<{tag}>{}</{tag}>", escaped(text));
            format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
        };
        let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
        let header = row(&table.header, "th");
        self.push(format_args!("<table>\n{header}{rows}</table>\n"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    pub(super) fn html(&self) -> String {
        let (body, dark) = (&self.body, chart::dark_css());
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>Embudo</title>\n\
             <style>{STYLE}{dark}</style>\n</head>\n<body>\n<h1>Embudo, measured</h1>\n{body}</body>\n</html>\n"
        )
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // A String takes whatever is written to it.
        let _ = self.body.write_fmt(text);
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}
