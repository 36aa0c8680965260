use super::*;

async fn start(change: impl FnOnce(&mut RealLaravelOptions)) -> RealLaravel {
    let mut options = RealLaravelOptions::default();
    change(&mut options);
    RealLaravel::start(options).await.unwrap()
}

#[tokio::test]
async fn what_arrives_is_in_its_log_and_what_took_effect_in_its_rows() {
    let session = "0b1c7d6e-1111-4222-8333-444455556666";
    let laravel = start(|options| options.accounts = vec![session.to_owned()]).await;
    let path = format!("/api/whatsapp/status/{session}");
    let answer = get(laravel.addr(), &path).await.unwrap();
    assert!(
        answer.contains(r#"{"estado_qr":"pending","status":"pending"}"#),
        "{answer}"
    );
    let rows = laravel.rows().unwrap();
    assert_eq!((rows.len(), rows[session].state.as_str()), (1, "pending"));
    let journal = laravel.journal().unwrap();
    assert_eq!(
        journal.counts(1).requests(),
        1,
        "the questions of the start are forgotten"
    );
    laravel.reset().unwrap();
    assert_eq!(laravel.journal().unwrap().counts(1).requests(), 0);
}

#[tokio::test]
async fn it_costs_processor_time_and_memory() {
    let laravel = start(|options| options.workers = 2).await;
    let before = laravel.cpu_seconds();
    for _ in 0..50 {
        get(laravel.addr(), NOBODY).await.unwrap();
    }
    assert!(
        laravel.cpu_seconds() > before,
        "fifty requests are more than nothing"
    );
    let mib = laravel.rss_bytes() / (1024 * 1024);
    assert!((5..500).contains(&mib), "{mib} MiB");
    // nginx has a master and a worker, PHP-FPM a master and two.
    assert_eq!(laravel.processes().len(), 5);
}
