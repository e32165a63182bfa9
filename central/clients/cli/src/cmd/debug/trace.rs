//! Where the time of a start went, as a chart.

use roost_proto::model::StageTiming;

use super::super::App;
use super::local::LocalSandbox;
use crate::error::CliError;
use crate::output::{OutputArgs, Printer, Tone, human};
use crate::wait::judge::{start_us, status};

/// Columns of the bars where no terminal says otherwise.
const DEFAULT_BAR_COLUMNS: usize = 40;
/// Fewest and most columns of the bars.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 10..=80;
/// Columns of name, duration, share and the space between.
const OTHER_COLUMNS: usize = 38;

/// Shows the stages of the last start.
///
/// # Errors
/// The result cannot be shown.
pub(super) fn run(app: &App, sandbox: &LocalSandbox, output: OutputArgs) -> Result<(), CliError> {
    let observed = &sandbox.observed;
    let printer = Printer::new(&app.console, output);
    Ok(printer.one(&observed.stages, &sandbox.label(), || match start_us(observed) {
        None => format!("{} has not been started yet ({})", sandbox.label(), status(observed)),
        Some(total) => format!(
            "{} {}, last start {}\n\n{}",
            sandbox.label(),
            status(observed),
            human::duration_us(total),
            chart(&observed.stages, app.console.width, app.console.colours_results())
        ),
    })?)
}

/// One line per stage: name, duration, share and a bar that stands where the
/// stage stood in time. `width` is that of the terminal in columns.
pub(crate) fn chart(stages: &[StageTiming], width: Option<u16>, has_colour: bool) -> String {
    let total = stages.iter().map(|stage| stage.begin_us.saturating_add(stage.duration_us)).max().unwrap_or(0).max(1);
    let columns = width.map_or(DEFAULT_BAR_COLUMNS, |width| usize::from(width).saturating_sub(OTHER_COLUMNS));
    let columns = columns.clamp(*BAR_COLUMNS.start(), *BAR_COLUMNS.end());
    let longest = stages.iter().map(|stage| stage.duration_us).max().unwrap_or(0);
    let line = |stage: &StageTiming| {
        let share = u128::from(stage.duration_us) * 100 / u128::from(total);
        let tone = if stage.duration_us == longest { Tone::Busy } else { Tone::Good };
        let bar = tone.paint(&bar(stage, total, columns), has_colour);
        let line = format!("{:<18} {:>8} {share:>3}%  {bar}", stage.stage, human::duration_us(stage.duration_us));
        line.trim_end().to_owned()
    };
    stages.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A bar in eighths of a column, at least one of them.
fn bar(stage: &StageTiming, total_us: u64, columns: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let scale = |us: u64| {
        let eighths = u128::from(us) * u128::from(u64::try_from(columns).unwrap_or(0)) * 8 / u128::from(total_us);
        usize::try_from(eighths).unwrap_or(0)
    };
    // Bars begin on whole columns: there is no glyph for the right part.
    let begin = (scale(stage.begin_us) / 8).min(columns.saturating_sub(1));
    let length = scale(stage.duration_us).clamp(1, (columns - begin) * 8);
    format!("{}{}{}", " ".repeat(begin), "█".repeat(length / 8), EIGHTHS[length % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::Stage;

    fn timing(stage: Stage, begin_us: u64, duration_us: u64) -> StageTiming {
        StageTiming { stage, begin_us, duration_us }
    }

    #[test]
    fn bars_stand_where_their_stage_stood_in_time() {
        let stages = [
            timing(Stage::Ledger, 0, 25_000),
            timing(Stage::Rootfs, 25_000, 50_000),
            timing(Stage::FirstFrame, 75_000, 25_000),
        ];
        let chart = chart(&stages, Some(78), false);
        let expected = [
            "ledger                25 ms  25%  ██████████",
            "rootfs                50 ms  50%            ████████████████████",
            "first_frame           25 ms  25%                                ██████████",
        ];
        assert_eq!(chart.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_shortest_stage_is_still_seen_and_none_leaves_the_chart() {
        let stages =
            [timing(Stage::Ledger, 0, 1), timing(Stage::Rootfs, 999_999, 1), timing(Stage::Workload, 0, 1_000_000)];
        for line in chart(&stages, Some(60), false).lines() {
            assert!(line.chars().count() <= 60 && line.ends_with(['▏', '█']), "{line}");
        }
    }

    #[test]
    fn no_stages_are_no_chart() {
        assert_eq!(chart(&[], None, false), "");
    }
}
