//! `pg_stat_activity`: what each connection does.

use crate::protocol::CATALOG;
use crate::support::lookaside::Lookaside;
use crate::support::raw::{Messages, RawClient};

#[tokio::test]
async fn activity_shows_what_each_connection_does() {
    let server = Lookaside::start(CATALOG).await;
    let mut busy = RawClient::open(server.port).await;
    busy.log_in(&[("user", "ana"), ("database", "shop"), ("application_name", "tool")]).await;
    busy.send(Messages::default().query("SELECT id FROM inbox")).await;
    assert_eq!(busy.next().await.unwrap(), "T id:20");
    let mut resting = RawClient::connect(server.port).await;
    resting.query("BEGIN; SELECT 1").await;

    let mut other = RawClient::connect(server.port).await;
    let sql = |pid: i32| {
        format!(
            "SELECT usename, datname, application_name, client_addr, state, query, xact_start IS NULL AS no_transaction,
                    backend_start <= query_start AS in_order FROM pg_stat_activity WHERE pid = {pid}"
        )
    };
    let busy_row = "D ana|shop|tool|127.0.0.1|active|SELECT id FROM inbox|f|t";
    assert_eq!(other.query(&sql(busy.pid)).await[1], busy_row);
    let resting_row = "D tests|tests||127.0.0.1|idle in transaction|BEGIN; SELECT 1|f|t";
    assert_eq!(other.query(&sql(resting.pid)).await[1], resting_row);
    resting.query("ROLLBACK").await;
    let resting_row = "D tests|tests||127.0.0.1|idle|ROLLBACK|t|t";
    assert_eq!(other.query(&sql(resting.pid)).await[1], resting_row);
}
