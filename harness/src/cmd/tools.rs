//! `embudo tools`: what a live run needs, before it is needed.

use anyhow::Result;
use embudo::live::tools::Tools;

pub(crate) async fn run() -> Result<()> {
    let tools = tokio::task::spawn_blocking(Tools::find_or_install).await??;
    println!("func-e  {}", tools.func_e.display());
    println!("Envoy   {}", tools.envoy.display());
    Ok(())
}
