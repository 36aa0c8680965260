//! `embudo tools`: what a live run needs, before it is needed.

use anyhow::Result;
use clap::Args;
use embudo::live::tools::{LaravelTools, Tools};

/// Find func-e and Envoy, or install the pinned ones into .tools/
///
/// Every command that needs them does the same. ENVOY_PATH names an Envoy of your own.
#[derive(Args, Debug)]
pub(crate) struct ToolsArguments {
    /// PHP, Laravel and nginx too, from the distribution's packages; installing them takes root
    #[arg(long)]
    laravel: bool,
}

pub(crate) async fn run(arguments: ToolsArguments) -> Result<()> {
    let find = tokio::task::spawn_blocking(move || {
        let tools = Tools::find_or_install()?;
        let laravel = arguments.laravel.then(LaravelTools::find_or_install);
        anyhow::Ok((tools, laravel.transpose()?))
    });
    let (tools, laravel) = find.await??;
    println!("func-e   {}", tools.func_e.display());
    println!("Envoy    {}", tools.envoy.display());
    if let Some(laravel) = laravel {
        println!("PHP      {}", laravel.php.display());
        println!("PHP-FPM  {}", laravel.php_fpm.display());
        println!("nginx    {}", laravel.nginx.display());
        println!("PHPUnit  {}", laravel.phpunit.display());
    }
    Ok(())
}
