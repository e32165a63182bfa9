//! `roost sandbox`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use roost_proto::id::{ProfileName, SandboxName, TemplateName};
use roost_proto::model::{Phase, ResourcesChange};

use super::{ClaimArgs, CopyArgs, LifetimeArgs};
use crate::output::{ListArgs, OutputArgs};
use crate::values;
use crate::wait::Goal;

/// The verbs of a sandbox.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Make a sandbox from a template
    #[command(after_help = "\
Examples:
  roost sandbox create desktop --name demo --wait
  roost sandbox create desktop --profile small -e LANG=de_DE.UTF-8 --env-file .env
  roost sandbox create desktop --ttl 8h --idle 30m
  roost sandbox create bare --count 100 --name test --wait
  id=$(roost sandbox create bare -o name)")]
    Create(CreateArgs),
    /// Take a desktop of a pool, with what it is given
    #[command(after_help = "\
Examples:
  roost sandbox claim desks --name demo -e TASK=42 --file task.json:/home/agent/task.json:0600
  roost sandbox claim desks --secret API_KEY --secret cert=@client.pem --identity agent=agt-7
  pass show key | roost sandbox claim desks --secret key=- -o json
  roost sandbox claim desks --screen 1024x768 --memory 2Gi
  sudo roost sandbox claim mine --node-socket

Variables and secrets reach the hook of the template's entry point; the exit
code is 8 when that ended with another status than 0. Values of secrets are
never words of the command line. `roost sandbox rm` releases it.")]
    Claim(ClaimArgs),
    /// List sandboxes
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  roost sandbox ls
  roost sandbox ls --phase Failed -o wide
  roost sandbox ls --watch
  roost sandbox ls -o name | xargs roost sandbox rm"
    )]
    Ls(ListSandboxesArgs),
    /// Show everything about sandboxes
    #[command(after_help = "\
Examples:
  roost sandbox get demo
  roost sandbox get demo -o json | jq .observed.stages")]
    Get(GetArgs),
    /// Start stopped sandboxes
    #[command(after_help = "Example:\n  roost sandbox start demo --wait")]
    Start(VerbArgs),
    /// End the processes of sandboxes; what they hold is kept
    #[command(after_help = "Example:\n  roost sandbox stop demo --wait")]
    Stop(VerbArgs),
    /// Stop and start sandboxes
    #[command(after_help = "Example:\n  roost sandbox restart demo --wait --timeout 1m")]
    Restart(VerbArgs),
    /// Make all processes of sandboxes stand still; they keep their memory
    #[command(after_help = "\
Examples:
  roost sandbox pause demo --wait
  roost sandbox resume demo

A screenshot of a paused sandbox shows its last frame; programs cannot be run in it.")]
    Pause(VerbArgs),
    /// Let the processes of paused sandboxes go on
    #[command(after_help = "Example:\n  roost sandbox resume demo --wait")]
    Resume(VerbArgs),
    /// Change what sandboxes may use and how long they live, without a restart
    #[command(
        override_usage = "roost sandbox set <SANDBOX>... <WHAT TO CHANGE>... [OPTIONS]",
        after_help = "\
Examples:
  roost sandbox set demo --memory 8Gi --cpu 2
  roost sandbox set demo --cpu 500m --pids 300 --shm 256Mi --wait
  roost sandbox set demo --cpu 0 --cpu-request 1
  roost sandbox set demo --disk-limit 20Gi
  roost sandbox set demo --ttl 8h
  roost sandbox set demo --idle 30m --idle-action pause
  roost sandbox set demo --memory 2Gi --if-generation 3
  sudo roost sandbox set local-demo --memory 2Gi --node-socket

Where the kernel cannot lower a limit, because more is in use, the old one
stays and the new one is tried again: --wait then ends with exit code 4, and
`roost sandbox get` says why."
    )]
    Set(SetArgs),
    /// Remove sandboxes with everything they hold
    #[command(
        visible_aliases = ["delete", "release"],
        after_help = "\
Examples:
  roost sandbox rm demo --wait
  roost sandbox rm --all-stopped
  roost sandbox rm --selector template=bare,phase=Failed --yes
  roost sandbox rm --all --yes"
    )]
    Rm(RemoveArgs),
    /// Run a program inside a sandbox
    #[command(after_help = "\
Examples:
  roost sandbox exec demo -- uname -a
  roost sandbox exec -it demo -- bash
  tar c src | roost sandbox exec -i demo -- tar x -C /tmp

The exit code is the program's own.")]
    Exec(ExecArgs),
    /// Copy files and directories into a sandbox or out of it
    #[command(
        visible_alias = "copy",
        after_help = "\
Examples:
  roost sandbox cp report.txt demo:/home/agent/
  roost sandbox cp src tests demo:/home/agent/work
  roost sandbox cp src/. demo:/home/agent/work
  roost sandbox cp demo:/home/agent/out ./out
  roost sandbox cp demo:/home/agent/out - | tar t
  tar c src | roost sandbox cp - demo:/home/agent
  sudo roost sandbox cp a.txt demo:/tmp --node-socket /run/roost/roostd.sock

TARGET is as for cp: a directory that exists is copied into; another path is the
new name of the one SOURCE. SOURCE/. is the content of a directory. Files are
written and read as the sandbox's user, without a program of the image. Links
are copied as links; what is below a link, outside of the tree or a device is
refused. A copy that breaks off leaves whole files only."
    )]
    Cp(CopyArgs),
    /// Print the output of a sandbox
    #[command(
        visible_alias = "log",
        after_help = "\
Examples:
  roost sandbox logs demo --tail 100 -f
  roost sandbox logs demo --display"
    )]
    Logs(LogsArgs),
    /// Save what a sandbox shows as PNG
    #[command(after_help = "\
Examples:
  roost sandbox screenshot demo
  roost sandbox screenshot demo -o - | display -")]
    Screenshot(ScreenshotArgs),
    /// Wait until sandboxes are where they should be
    #[command(after_help = "\
Examples:
  roost sandbox wait demo --for=Ready --timeout 1m
  roost sandbox wait demo demo-2 --for=Gone")]
    Wait(WaitArgs),
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What to make it from; `roost template ls` shows what there is
    pub(crate) template: TemplateName,
    /// A name to call it by [default: none, use its id]; with --count each gets
    /// its number appended
    #[arg(long)]
    pub(crate) name: Option<SandboxName>,
    /// How many to make
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,
    /// What it may use [default: the template's own]
    #[arg(long)]
    pub(crate) profile: Option<ProfileName>,
    /// Set a variable inside; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Set the variables of a file, one KEY=VALUE a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) lifetime: LifetimeArgs,
    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `--wait` and `--timeout`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitingArgs {
    /// Return only when it is done
    #[arg(short, long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) limit: TimeoutArgs,
}

/// `--timeout`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TimeoutArgs {
    /// Longest time to wait; 0 = without end
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct ListSandboxesArgs {
    /// Go on and show every change
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Only in this phase, e.g. Ready or Failed
    #[arg(long, value_parser = phase)]
    pub(crate) phase: Option<Phase>,
    /// Only from this template
    #[arg(long)]
    pub(crate) template: Option<TemplateName>,
    /// Only on this node (name or id)
    #[arg(long)]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) sandboxes: Vec<SandboxName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `start`, `stop`, `restart`, `pause`, `resume`.
#[derive(Debug, Args)]
pub(crate) struct VerbArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) sandboxes: Vec<SandboxName>,
    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,
}

/// `set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) sandboxes: Vec<SandboxName>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    #[command(flatten)]
    pub(crate) lifetime: LifetimeArgs,
    /// Only if it was not changed since it had this generation
    #[arg(long, value_name = "GENERATION", conflicts_with = "socket")]
    pub(crate) if_generation: Option<u64>,
    /// Change sandboxes that were made on this machine without central
    /// [default path: /run/roost/roostd.sock]
    #[arg(long = "node-socket", alias = "socket", value_name = "PATH", num_args = 0..=1, conflicts_with = "wait")]
    #[allow(clippy::option_option, reason = "absent, without a path, with one")]
    pub(crate) socket: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What `set` changes.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ChangeArgs {
    /// Most CPU, in cores or thousandths (2, 0.5, 500m); 0 = no limit
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    cpu: Option<u32>,
    /// Most memory (4Gi, 512Mi, or bytes)
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    memory: Option<u64>,
    /// Most processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    shm: Option<u64>,
    /// Most that its files take on the disk; it can only be raised
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    disk_limit: Option<u64>,
    /// CPU that placement counts
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    cpu_request: Option<u32>,
    /// Memory that placement counts
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    memory_request: Option<u64>,
}

impl From<ChangeArgs> for ResourcesChange {
    fn from(args: ChangeArgs) -> Self {
        Self {
            cpu_request_millis: args.cpu_request,
            cpu_limit_millis: args.cpu,
            memory_request_bytes: args.memory_request,
            memory_limit_bytes: args.memory,
            pids_limit: args.pids,
            shm_bytes: args.shm,
            disk_limit_bytes: args.disk_limit,
        }
    }
}

/// `rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Names or ids
    #[arg(required_unless_present_any = ["all", "all_stopped", "selector"], value_name = "SANDBOX")]
    #[arg(conflicts_with_all = ["all", "all_stopped", "selector"])]
    pub(crate) sandboxes: Vec<SandboxName>,
    /// Remove every sandbox
    #[arg(long)]
    pub(crate) all: bool,
    /// Remove those that are Stopped or Failed
    #[arg(long, conflicts_with = "all")]
    pub(crate) all_stopped: bool,
    /// Remove those of which all of this is true: phase=PHASE, template=NAME,
    /// node=NODE, separated by commas
    #[arg(short = 'l', long, value_name = "TERMS", value_delimiter = ',', value_parser = selector_term)]
    #[arg(conflicts_with = "all")]
    pub(crate) selector: Vec<SelectorTerm>,
    /// On a terminal: do not ask before many are removed
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// A sandbox that does not exist is no error
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    #[command(flatten)]
    pub(crate) waiting: WaitingArgs,
}

impl RemoveArgs {
    /// Whether those to remove are not named.
    pub(crate) fn is_selection(&self) -> bool {
        self.all || self.all_stopped || !self.selector.is_empty()
    }
}

/// What must be true of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SelectorTerm {
    /// It is in this phase.
    Phase(Phase),
    /// It is of this template.
    Template(TemplateName),
    /// It is on this node, by name or id.
    Node(String),
}

fn selector_term(text: &str) -> Result<SelectorTerm, String> {
    let help = || "use phase=PHASE, template=NAME or node=NODE".to_owned();
    match text.split_once('=').ok_or_else(help)? {
        ("phase", value) => phase(value).map(SelectorTerm::Phase),
        ("template", value) => value.parse().map(SelectorTerm::Template).map_err(|_| help()),
        ("node", value) if !value.is_empty() => Ok(SelectorTerm::Node(value.into())),
        _ => Err(help()),
    }
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Directory to run it in [default: the workload's own]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Name or id
    pub(crate) sandbox: SandboxName,
    /// Program and arguments, after --
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name or id
    pub(crate) sandbox: SandboxName,
    /// Go on as more is written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// The display server's output instead of the workload's
    #[arg(long)]
    pub(crate) display: bool,
}

/// `screenshot`.
#[derive(Debug, Args)]
pub(crate) struct ScreenshotArgs {
    /// Name or id
    pub(crate) sandbox: SandboxName,
    /// Where to save it; - = standard output [default: SANDBOX.png]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SANDBOX")]
    pub(crate) sandboxes: Vec<SandboxName>,
    /// What to wait for: Ready, Paused, Stopped or Gone
    #[arg(long = "for", value_enum, value_name = "PHASE", default_value_t = Goal::Ready, hide_possible_values = true)]
    pub(crate) goal: Goal,
    #[command(flatten)]
    pub(crate) limit: TimeoutArgs,
}

/// Reads a phase, whatever its case.
fn phase(text: &str) -> Result<Phase, String> {
    let found = Phase::ALL.into_iter().find(|phase| phase.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("use one of {}", Phase::ALL.map(|phase| phase.to_string()).join(", ")))
}
