//! `roost image pull`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use roost_proto::model::{ImageInfo, LayerState, Problem, PullPolicy, PullStep};
use serde::Serialize;

use super::super::App;
use super::place;
use crate::cli::PullArgs;
use crate::client::{Pull, PullEvent, PullLine};
use crate::error::{CliError, Exit};
use crate::output::{Console, Printer, human};

/// Most layers of one node that get a line: what fits beside other nodes.
const MAX_LAYER_LINES: usize = 8;

/// What became of the pull on one node.
#[derive(Debug, Serialize)]
struct Outcome {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

/// Has nodes pull an image.
///
/// # Errors
/// See [`CliError`]; a node that fails does not stop the others.
pub(super) async fn run(app: &App, args: PullArgs) -> Result<(), CliError> {
    let policy = if args.if_not_present { PullPolicy::IfNotPresent } else { PullPolicy::Always };
    let nodes = args.nodes.nodes.clone();
    let pull = Pull { reference: args.reference, policy, pin: args.pin, nodes };
    let board = Board::new(&app.console);
    let pulled = match args.nodes.node_socket {
        Some(path) => place::pull_at(&place::socket(app, path).await?, &pull, |line| board.take(line)).await,
        None => app.client()?.pull_image(&pull, |line| board.take(line)).await.map_err(CliError::from),
    };
    let outcomes = board.finish();
    pulled?;
    show(app, args.output, &outcomes)
}

fn show(app: &App, list: crate::output::ListArgs, outcomes: &[Outcome]) -> Result<(), CliError> {
    let printer = Printer::list(&app.console, list);
    let mut is_whole = true;
    for outcome in outcomes {
        if let Some(problem) = &outcome.problem {
            is_whole = false;
            app.console.headed("error:", crate::output::Tone::Bad, &format!("{}: {}", outcome.node, problem.detail));
        } else if let Some(image) = outcome.image.as_ref().filter(|_| !printer.is_data()) {
            let (digest, size) = (human::short_digest(&image.digest), human::size(image.size_bytes));
            app.console.line(&format!("{} is on {} ({digest}, {size})", image.reference, outcome.node))?;
        }
    }
    if printer.is_data() {
        printer.data(&outcomes)?;
    }
    if is_whole { Ok(()) } else { Err(CliError::Told(Exit::Error)) }
}

/// One line for each node and, on a terminal, one for each of its layers.
struct Board<'a> {
    console: &'a Console,
    bars: MultiProgress,
    nodes: RefCell<BTreeMap<String, NodeBars>>,
    outcomes: RefCell<Vec<Outcome>>,
}

struct NodeBars {
    whole: ProgressBar,
    layers: BTreeMap<String, ProgressBar>,
    step: String,
}

impl<'a> Board<'a> {
    fn new(console: &'a Console) -> Self {
        let is_shown = console.has_stderr_terminal;
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        Self { console, bars, nodes: RefCell::default(), outcomes: RefCell::default() }
    }

    fn take(&self, line: PullLine) {
        let PullLine { node, event } = line;
        let outcome = match event {
            PullEvent::Step(step) => return self.step(&node, &step),
            PullEvent::Done(image) => Outcome { node, image: Some(*image), problem: None },
            PullEvent::Failed(problem) => Outcome { node, image: None, problem: Some(*problem) },
        };
        if let Some(bars) = self.nodes.borrow_mut().remove(&outcome.node) {
            bars.clear();
        }
        self.outcomes.borrow_mut().push(outcome);
    }

    fn step(&self, node: &str, step: &PullStep) {
        let mut nodes = self.nodes.borrow_mut();
        let bars = nodes.entry(node.to_owned()).or_insert_with(|| NodeBars {
            whole: self.bars.add(bar(step.total_bytes, node)),
            layers: BTreeMap::new(),
            step: String::new(),
        });
        if bars.step != step.name {
            bars.step.clone_from(&step.name);
            if !self.console.has_stderr_terminal {
                let from = if step.source.is_empty() { String::new() } else { format!(" from {}", step.source) };
                self.console.note(&format!("{node}: {}{from}", step.name));
            }
        }
        bars.whole.set_message(format!("{node}: {}", step.name));
        bars.whole.set_length(step.total_bytes);
        bars.whole.set_position(step.done_bytes);
        for layer in &step.layers {
            let is_busy = matches!(layer.state, LayerState::Downloading | LayerState::Unpacking);
            match bars.layers.get(&layer.digest) {
                Some(known) if is_busy => known.set_position(layer.done_bytes),
                Some(_) => {
                    if let Some(known) = bars.layers.remove(&layer.digest) {
                        known.finish_and_clear();
                    }
                }
                None if is_busy && bars.layers.len() < MAX_LAYER_LINES => {
                    let name = format!("  {}", human::short_digest(&layer.digest));
                    let last = bars.layers.values().last().unwrap_or(&bars.whole);
                    let new = self.bars.insert_after(last, bar(layer.total_bytes, &name));
                    new.set_position(layer.done_bytes);
                    bars.layers.insert(layer.digest.clone(), new);
                }
                None => {}
            }
        }
    }

    fn finish(self) -> Vec<Outcome> {
        for bars in self.nodes.borrow().values() {
            bars.clear();
        }
        self.outcomes.into_inner()
    }
}

impl NodeBars {
    fn clear(&self) {
        self.layers.values().for_each(ProgressBar::finish_and_clear);
        self.whole.finish_and_clear();
    }
}

fn bar(total_bytes: u64, message: &str) -> ProgressBar {
    let template = "{msg:<24} {bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes).with_style(style.progress_chars("━╸─")).with_message(message.to_owned())
}
