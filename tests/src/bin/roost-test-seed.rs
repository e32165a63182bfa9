//! Makes the containerd state that test nodes start from, and prints its path.

use std::process::ExitCode;

fn main() -> ExitCode {
    let made = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(roost_tests::seed::make()));
    match made {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
