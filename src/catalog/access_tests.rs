use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::catalog::Catalog;
use crate::catalog::viewer::Reach;

const PASSWORD: &str = "password = \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"";

fn read(texts: &[&str]) -> Result<CatalogDefinition, Vec<String>> {
    let file = |(number, text): (usize, &&str)| (PathBuf::from(format!("conf/{number}.toml")), (*text).to_string());
    let files: Vec<_> = texts.iter().enumerate().map(file).collect();
    read_text(&files, &|_| None).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn only(names: &[&str]) -> Reach {
    Reach::Only(names.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
}

#[test]
fn a_user_has_the_rights_of_all_his_roles_wherever_they_stand() {
    let users = format!("[user.ana]\n{PASSWORD}\nroles = [\"analyst\", \"feeder\"]\n[user.nobody]\n{PASSWORD}\n");
    let more = format!("[user.root]\n{PASSWORD}\nroles = [\"feeder\", \"boss\"]\n");
    let roles = "[role.analyst]\nread = [\"orders\", \"customers\"]\n[role.feeder]\nread = [\"orders\"]\nwrite = [\"orders\"]\n\
                 [role.boss]\nadmin = true";
    let catalog = read(&[&users, &more, roles]).unwrap();
    let rights: Vec<_> = catalog.users.iter().map(|user| (user.name.as_str(), user.rights.as_ref())).collect();
    assert_eq!(rights[0].0, "ana");
    assert_eq!((&rights[0].1.read, &rights[0].1.write), (&only(&["customers", "orders"]), &only(&["orders"])));
    assert!(!rights[0].1.admin);
    assert_eq!(rights[1], ("nobody", &crate::catalog::Rights { read: only(&[]), write: only(&[]), admin: false }));
    assert_eq!(rights[2], ("root", &crate::catalog::Rights::all()));
}

#[test]
fn what_stands_in_server_is_read_and_the_rest_has_defaults() {
    let text = "[server]\nlisten = \"[::]:7432\"\ntls_certificate = \"a.crt\"\ntls_key = \"a.key\"\ntls_client_ca = \"/ca.crt\"\n\
                require_tls = false\nmax_connections = 7\nlogin_timeout = \"2s\"\nidle_timeout = \"5m\"\nopen_metrics = true\n\
                open_health = true\nlet_other_machines_in_unprotected = true";
    let server = read(&[text]).unwrap().server;
    let tls = server.tls.unwrap();
    assert_eq!((tls.certificate, tls.key), (PathBuf::from("conf/a.crt"), PathBuf::from("conf/a.key")));
    assert_eq!((tls.client_ca, server.require_tls), (Some(PathBuf::from("/ca.crt")), Some(false)));
    assert_eq!((server.max_connections.get(), server.login_timeout), (7, Duration::from_secs(2)));
    assert_eq!(server.idle_timeout, Some(Duration::from_secs(300)));
    assert!(server.open_metrics && server.open_health && server.let_other_machines_in_unprotected);
    let server = read(&["[server]\nidle_timeout = \"0s\""]).unwrap().server;
    assert_eq!(server, crate::catalog::definition::ServerDefinition::default());
    assert_eq!((server.max_connections.get(), server.login_timeout), (1000, Duration::from_secs(30)));
}

#[test]
fn mistakes_about_users_say_what_to_do() {
    for (text, expected) in [
        (
            "[user.ana]\npassword = \"sesame\"".to_string(),
            "2:12: \"password\" in [user.ana] is not a SCRAM-SHA-256 verifier (hint: Run lookaside passwd and write what it \
             prints: no file holds a password itself.)",
        ),
        ("[user.ana]".to_string(), "1:7: [user.ana] lacks \"password\""),
        (
            format!("[user.ana]\n{PASSWORD}\nroles = [\"analist\"]\n[role.analyst]\n"),
            "3:10: role \"analist\" does not exist (hint: Perhaps you meant \"analyst\".)",
        ),
        (
            format!("[user.ana]\n{PASSWORD}\nroles = [\"x\"]"),
            "3:10: role \"x\" does not exist (hint: Declare it as [role.NAME].)",
        ),
        (
            "[server]\nrequire_tls = true".to_string(),
            "2:15: require_tls = true in [server] lets nobody in without a certificate (hint: Write tls_certificate and \
             tls_key as well.)",
        ),
        (
            "[server]\ntls_certificate = \"a\"".to_string(),
            "2:19: \"tls_certificate\" in [server] has no effect without \"tls_key\"",
        ),
        (
            "[server]\ntls_key = \"a\"".to_string(),
            "2:11: \"tls_key\" in [server] has no effect without \"tls_certificate\"",
        ),
        (
            "[server]\ntls_client_ca = \"a\"".to_string(),
            "2:17: \"tls_client_ca\" in [server] has no effect without \"tls_certificate\"",
        ),
        (
            "[server]\nlogin_timeout = \"0s\"".to_string(),
            "2:17: \"login_timeout\" in [server] must not be zero (hint: Leave it out for its default.)",
        ),
    ] {
        assert_eq!(read(&[&text]).unwrap_err(), [format!("conf/0.toml:{expected}")]);
    }
    let twice = format!("[user.ana]\n{PASSWORD}");
    let expected = "conf/1.toml:1:7: name \"ana\" is already taken by the user at conf/0.toml:1:7";
    assert_eq!(read(&[&twice, &twice]).unwrap_err(), [expected]);
}

#[test]
fn rights_over_what_is_not_there_are_told_until_a_view_has_the_name() {
    let text = "[stream.orders]\ntype = \"push\"\ncolumns = { id = \"bigint\" }\n\
                [role.r]\nread = [\"orders\", \"ordres\", \"totals\"]";
    let catalog = Catalog::open(read(&[text]).unwrap()).unwrap();
    let idle: Vec<_> = catalog.idle_grants().iter().map(ToString::to_string).collect();
    assert_eq!(
        idle,
        [
            "conf/0.toml:5:19: \"ordres\" in [role.r] is no stream, lookup table or view, so nothing is allowed by it (hint: \
             Perhaps you meant \"orders\".)",
            "conf/0.toml:5:29: \"totals\" in [role.r] is no stream, lookup table or view, so nothing is allowed by it",
        ]
    );
}
