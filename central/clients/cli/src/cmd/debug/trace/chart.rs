//! Stages as bars that stand where they stood in time.

use roost_proto::model::StageTiming;

use crate::output::{Console, Tone, human};

/// Columns of the bars where no terminal says otherwise.
const DEFAULT_BAR_COLUMNS: usize = 40;
/// Fewest and most columns of the bars.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 10..=100;
/// Columns of name, duration, share and the space between.
const OTHER_COLUMNS: usize = 38;
/// Fewest columns between two marks of the axis: a mark is up to 7 wide.
const MARK_COLUMNS: usize = 12;

/// How a chart is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Columns of the terminal; absent = no terminal.
    pub(crate) width: Option<u16>,
    /// Whether colours are shown.
    pub(crate) has_colour: bool,
    /// Whether the terminal shows more than ASCII.
    pub(crate) has_unicode: bool,
}

impl Look {
    /// What suits a console.
    pub(crate) fn of(console: &Console) -> Self {
        Self { width: console.width, has_colour: console.colours_results(), has_unicode: console.has_unicode }
    }

    fn bar_columns(self) -> usize {
        let columns = self.width.map_or(DEFAULT_BAR_COLUMNS, |width| usize::from(width).saturating_sub(OTHER_COLUMNS));
        columns.clamp(*BAR_COLUMNS.start(), *BAR_COLUMNS.end())
    }
}

/// One bar: from a begin to an end, and on to a later end that is drawn
/// lighter; all in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) label: String,
    /// What stands between label and bar.
    pub(super) figures: String,
    pub(super) begin_us: u64,
    pub(super) end_us: u64,
    pub(super) far_end_us: u64,
    pub(super) tone: Tone,
}

/// One line per stage: name, duration, share of the whole, and its bar. The
/// longest one has a colour of its own.
pub(crate) fn chart(stages: &[StageTiming], look: Look) -> String {
    let end = |stage: &StageTiming| stage.begin_us.saturating_add(stage.duration_us);
    let total = stages.iter().map(end).max().unwrap_or(0).max(1);
    let longest = stages.iter().map(|stage| stage.duration_us).max().unwrap_or(0);
    let bar = |stage: &StageTiming| {
        let share = u128::from(stage.duration_us) * 100 / u128::from(total);
        Bar {
            label: stage.stage.to_string(),
            figures: format!("{:>8} {share:>3}%", human::duration_us(stage.duration_us)),
            begin_us: stage.begin_us,
            end_us: end(stage),
            far_end_us: end(stage),
            tone: if stage.duration_us == longest { Tone::Busy } else { Tone::Good },
        }
    };
    let bars: Vec<Bar> = stages.iter().map(bar).collect();
    draw(&bars, "    time     ", look)
}

/// The bars below a scale; nothing for no bars.
pub(super) fn draw(bars: &[Bar], title: &str, look: Look) -> String {
    let Some(total) = bars.iter().map(|bar| bar.far_end_us).max() else { return String::new() };
    let (total, columns) = (total.max(1), look.bar_columns());
    let figures = bars.iter().map(|bar| bar.figures.chars().count()).max().unwrap_or(0);
    let head = format!("{:<18} {title:<figures$}  {}", "stage", axis(total, columns));
    let head = Tone::Dim.paint(head.trim_end(), look.has_colour);
    let line = |bar: &Bar| {
        let drawn = strip(bar, total, columns, look.has_unicode);
        let line = format!("{:<18} {:<figures$}  {}", bar.label, bar.figures, bar.tone.paint(&drawn, look.has_colour));
        line.trim_end().to_owned()
    };
    std::iter::once(head).chain(bars.iter().map(line)).collect::<Vec<_>>().join("\n")
}

/// Marks at round times, each beginning at its place.
fn axis(total_us: u64, columns: usize) -> String {
    let marks = u64::try_from((columns / MARK_COLUMNS).max(1)).unwrap_or(1);
    let step = round_up(total_us.div_ceil(marks));
    let mut text = String::new();
    let mut at = 0;
    while at <= total_us {
        let mark = if at == 0 { "0".to_owned() } else { human::duration_us(at) };
        let place = scale(at, total_us, columns);
        if place + mark.chars().count() > columns {
            break;
        }
        let used = text.chars().count();
        text.push_str(&" ".repeat(place.saturating_sub(used)));
        text.push_str(&mark);
        at += step;
    }
    text
}

/// The next of 1, 2, 5, 10, 20, 50 … that is not smaller.
fn round_up(value: u64) -> u64 {
    let mut base = 1_u64;
    loop {
        for factor in [1, 2, 5] {
            let round = base.saturating_mul(factor);
            if round >= value || base >= u64::MAX / 10 {
                return round.max(1);
            }
        }
        base *= 10;
    }
}

fn scale(us: u64, total_us: u64, cells: usize) -> usize {
    let scaled = u128::from(us) * u128::from(u64::try_from(cells).unwrap_or(0)) / u128::from(total_us);
    usize::try_from(scaled).unwrap_or(0)
}

/// A bar in eighths of a column where glyphs for that are shown, at least one
/// of them, and in whole columns otherwise.
fn strip(bar: &Bar, total_us: u64, columns: usize, has_unicode: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    // Bars begin on whole columns: there is no glyph for the right part.
    let begin = scale(bar.begin_us, total_us, columns).min(columns.saturating_sub(1));
    let room = columns - begin;
    let length = bar.end_us.saturating_sub(bar.begin_us);
    let far = scale(bar.far_end_us.saturating_sub(bar.end_us), total_us, columns);
    if !has_unicode {
        let solid = scale(length, total_us, columns).clamp(1, room);
        return format!("{}{}{}", " ".repeat(begin), "#".repeat(solid), "-".repeat(far.min(room - solid)));
    }
    let eighths = scale(length, total_us, columns * 8).clamp(1, room * 8);
    let solid = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    let used = eighths.div_ceil(8);
    format!("{}{solid}{}", " ".repeat(begin), "░".repeat(far.min(room - used)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::Stage;

    fn timing(stage: Stage, begin_us: u64, duration_us: u64) -> StageTiming {
        StageTiming { stage, begin_us, duration_us }
    }

    fn look(width: u16, has_unicode: bool) -> Look {
        Look { width: Some(width), has_colour: false, has_unicode }
    }

    fn stages() -> [StageTiming; 3] {
        [
            timing(Stage::Ledger, 0, 25_000),
            timing(Stage::Rootfs, 25_000, 50_000),
            timing(Stage::FirstFrame, 75_000, 25_000),
        ]
    }

    #[test]
    fn bars_stand_where_their_stage_stood_in_time() {
        let chart = chart(&stages(), look(78, true));
        let expected = [
            "stage                  time       0                   50 ms",
            "ledger                25 ms  25%  ██████████",
            "rootfs                50 ms  50%            ████████████████████",
            "first_frame           25 ms  25%                                ██████████",
        ];
        assert_eq!(chart.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_terminal_without_unicode_gets_the_same_in_ascii() {
        let chart = chart(&stages(), look(78, false));
        assert!(chart.is_ascii(), "{chart}");
        assert!(chart.lines().nth(2).is_some_and(|line| line.ends_with(&format!(
            "  {}{}",
            " ".repeat(10),
            "#".repeat(20)
        ))));
    }

    #[test]
    fn stages_that_overlap_stand_below_each_other() {
        let stages = [timing(Stage::DisplayServer, 0, 80_000), timing(Stage::Workload, 40_000, 60_000)];
        let chart = chart(&stages, look(48, true));
        let begin = |line: usize| chart.lines().nth(line).map(|l| l.chars().take_while(|c| *c != '█').count());
        assert_eq!((begin(1), begin(2)), (Some(34), Some(38)));
    }

    #[test]
    fn the_shortest_stage_is_still_seen_and_none_leaves_the_chart() {
        let stages =
            [timing(Stage::Ledger, 0, 1), timing(Stage::Rootfs, 999_999, 1), timing(Stage::Workload, 0, 1_000_000)];
        for line in chart(&stages, look(60, true)).lines().skip(1) {
            assert!(line.chars().count() <= 60 && line.ends_with(['▏', '█']), "{line}");
        }
    }

    #[test]
    fn marks_are_round_and_do_not_touch() {
        assert_eq!([1, 3, 12_000, 60_000].map(round_up), [1, 5, 20_000, 100_000]);
        let axis = axis(239_000, 60);
        assert!(axis.split_whitespace().count() >= 5 && axis.chars().count() <= 60, "{axis}");
    }

    #[test]
    fn no_stages_are_no_chart() {
        assert_eq!(chart(&[], look(80, true)), "");
    }
}
