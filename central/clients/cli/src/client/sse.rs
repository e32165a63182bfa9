//! Server-sent events, line by line.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its kind; `message` when not said.
    pub(super) kind: String,
    /// Its data, lines joined.
    pub(super) data: String,
}

/// Puts lines together to events, as the HTML standard says.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    kind: String,
    data: Option<String>,
    last_id: Option<String>,
}

impl Assembler {
    /// Id of the last event that had one: where to resume.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Forgets a half-received event, and nothing else.
    pub(super) fn reconnect(&mut self) {
        self.kind.clear();
        self.data = None;
    }

    /// Forgets where to resume.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Takes one line; an empty one completes the event, if it has data.
    pub(super) fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let kind = if kind.is_empty() { "message".into() } else { kind };
            return self.data.take().map(|data| Event { kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = value.into(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.into()),
            },
            "id" if !value.contains('\0') => self.last_id = Some(value.into()),
            // Comments (empty field name) keep the connection alive; `retry`
            // is not followed, as the delay here grows by itself.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> (Vec<Event>, Assembler) {
        let mut assembler = Assembler::default();
        let events = text.split('\n').filter_map(|line| assembler.line(line)).collect();
        (events, assembler)
    }

    #[test]
    fn an_event_ends_with_an_empty_line() {
        let (events, assembler) = events("event: sandbox\nid: 7\ndata: {\"a\":\ndata: 1}\n\n: keep-alive\n\n");
        assert_eq!(events, [Event { kind: "sandbox".into(), data: "{\"a\":\n1}".into() }]);
        assert_eq!(assembler.last_id(), Some("7"));
    }

    #[test]
    fn a_half_received_event_is_dropped_on_reconnect_but_the_position_kept() {
        let (_, mut assembler) = events("id: 7\ndata: x\n\nid: 8\nevent: gone\ndata: half");
        assembler.reconnect();
        assert_eq!(assembler.line(""), None);
        assert_eq!(assembler.last_id(), Some("8"));
    }
}
