//! The Redis store against a cluster of three masters.

use std::sync::Arc;

use lookaside::store::redis::{
    Address, RedisConfig, RedisConnection, RedisServers, RedisStore, RedisTable, RedisValue,
};
use lookaside::store::{Store, StoreError};
use redis::Pipeline;

use crate::store_postgres::{request, texts};
use crate::store_redis::{bigints, config, found, hold_to_contract, table};
use crate::support::lookaside::Lookaside;
use crate::support::redis::RedisCluster;

fn connection(cluster: &RedisCluster) -> Arc<RedisConnection> {
    let address = |port| Address { host: "127.0.0.1".to_string(), port };
    let seeds = cluster.servers.iter().map(|server| address(server.port())).collect();
    let config = RedisConfig { servers: RedisServers::Cluster(seeds), ..config(&cluster.servers[0]) };
    RedisConnection::try_new("cache".to_string(), config).unwrap()
}

fn names() -> RedisTable {
    table("n:{id}", RedisValue::Hash, &[("id", "bigint"), ("name", "text")])
}

/// Names of the first thousand.
async fn load(cluster: &RedisCluster) {
    let mut connection = cluster.connect().await;
    for id in 0..1000 {
        let mut set = redis::cmd("HSET");
        set.arg(format!("n:{id}")).arg("name").arg(format!("name {id}"));
        set.exec_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn contract_holds_in_a_cluster() {
    let cluster = RedisCluster::start();
    let connection = connection(&cluster);
    // The driver's own cluster connection takes no pipelines over several slots: a command each.
    let mut load = OneByOne(cluster.connect().await);
    let connect = async |table| RedisStore::connect(Arc::clone(&connection), table).await.unwrap();
    hold_to_contract("contract", connect, &mut load).await;
}

/// Sends the commands of a pipeline one after the other.
struct OneByOne(redis::cluster_async::ClusterConnection);

impl redis::aio::ConnectionLike for OneByOne {
    fn req_packed_command<'a>(&'a mut self, command: &'a redis::Cmd) -> redis::RedisFuture<'a, redis::Value> {
        self.0.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> redis::RedisFuture<'a, Vec<redis::Value>> {
        Box::pin(async move {
            let sent = pipeline.cmd_iter().map(|command| {
                let mut connection = self.0.clone();
                async move { redis::aio::ConnectionLike::req_packed_command(&mut connection, command).await }
            });
            futures::future::try_join_all(sent).await
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[tokio::test]
async fn slots_on_their_way_and_slots_that_have_moved_are_followed() {
    let cluster = RedisCluster::start();
    load(&cluster).await;
    let store = RedisStore::connect(connection(&cluster), names()).await.unwrap();
    let all = async || {
        let answer =
            store.lookup(&request(&[0], &[1], &[], vec![bigints(&(0..1000).collect::<Vec<_>>())])).await.unwrap();
        assert_eq!(answer.rows.num_rows(), 1000);
        assert!(texts(&answer).iter().all(|text| text.split_once(": name ").is_some_and(|(key, name)| key == name)));
    };
    all().await;
    let (from, slot) = cluster.owner_of("n:7").await;
    let to = (from + 1) % 3;
    let id = async |server: usize| {
        let id = cluster.servers[server].run(&["CLUSTER", "MYID"]).await;
        redis::from_redis_value::<String>(id).unwrap()
    };
    let (from_id, to_id, slot, port) =
        (id(from).await, id(to).await, slot.to_string(), cluster.servers[to].port().to_string());
    cluster.servers[to].run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    cluster.servers[from].run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
    cluster.servers[from].run(&["MIGRATE", "127.0.0.1", &port, "n:7", "0", "5000"]).await;
    // The old server sends those who ask for what has gone to the new one, for once.
    all().await;
    let both = ["SETSLOT", slot.as_str(), "NODE", to_id.as_str()];
    for server in [to, from] {
        cluster.servers[server].run(&["CLUSTER", both[0], both[1], both[2], both[3]]).await;
    }
    // And now for good.
    all().await;
    all().await;
}

#[tokio::test]
async fn lost_server_costs_its_own_keys_alone_until_it_is_back() {
    let cluster = RedisCluster::start();
    load(&cluster).await;
    for server in &cluster.servers {
        server.run(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).await;
    }
    let store = RedisStore::connect(connection(&cluster), names()).await.unwrap();
    let (lost, _) = cluster.owner_of("n:1").await;
    let mut other = 2;
    while cluster.owner_of(&format!("n:{other}")).await.0 == lost {
        other += 1;
    }
    cluster.servers[lost].stop();
    let asked = request(&[0], &[1], &[], vec![bigints(&[1])]);
    let error = store.lookup(&asked).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert_eq!(found(&store, &[1], bigints(&[other])).await, [format!("0: name {other}")]);
    cluster.servers[lost].start_again();
    // It was never saved: the key is gone, the server is there.
    loop {
        match store.lookup(&asked).await {
            Ok(answer) => {
                assert_eq!(answer.rows.num_rows(), 0);
                return;
            }
            Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn catalog_of_a_cluster_answers_a_lookup_join() {
    let cluster = RedisCluster::start();
    load(&cluster).await;
    let catalog = format!(
        "[connection.cache]\ntype = \"redis\"\ncluster = [{}]\n[lookup.names]\nconnection = \"cache\"\nkey = \"n:{{id}}\"\nvalue = \"hash\"
        [lookup.names.columns]\nid = \"bigint\"\nname = \"text\"",
        cluster.seeds()
    );
    let lookaside = Lookaside::start(&catalog).await;
    let client = lookaside.connect().await;
    let query = "SELECT count(n.name) FROM generate_series(1, 2000) AS g (id) LEFT LOOKUP JOIN names n ON g.id = n.id";
    assert_eq!(client.query_one(query, &[]).await.unwrap().get::<_, i64>(0), 999);
    lookaside.stop().await;
    let alone = lookaside_error(
        &catalog
            .replace(&format!("cluster = [{}]", cluster.seeds()), &format!("url = \"{}\"", cluster.servers[0].url())),
    )
    .await;
    assert!(alone.contains("is part of a cluster: declare the connection with cluster = ["), "{alone}");
}

/// What a query over such a catalog, of one server of the cluster alone, ends with.
async fn lookaside_error(catalog: &str) -> String {
    let lookaside = Lookaside::start(catalog).await;
    let client = lookaside.connect().await;
    let query = "SELECT n.name FROM generate_series(1, 2000) AS g (id) LOOKUP JOIN names n ON g.id = n.id";
    let error = client.query(query, &[]).await.unwrap_err();
    lookaside.stop().await;
    error.as_db_error().unwrap().message().to_string()
}
