//! `lookaside passwd`: makes the verifier that a catalog file holds in the place of a password.

use std::io::{self, IsTerminal};

use postgres_protocol::password::scram_sha_256;

/// Prints the verifier of a password, which is typed twice or is the first line of stdin. Exit code 1 without one.
pub fn run() -> u8 {
    match read_password() {
        Ok(password) => {
            println!("{}", scram_sha_256(password.as_bytes()));
            0
        }
        Err(message) => {
            eprintln!("lookaside: {message}");
            1
        }
    }
}

fn read_password() -> Result<String, String> {
    let cannot_read = |error: io::Error| format!("cannot read the password: {error}");
    let password = match io::stdin().is_terminal() {
        true => {
            let password = rpassword::prompt_password("Password: ").map_err(cannot_read)?;
            let again = rpassword::prompt_password("The same again: ").map_err(cannot_read)?;
            if password != again {
                return Err("the two passwords differ".to_string());
            }
            password
        }
        false => {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map_err(cannot_read)?;
            line.trim_end_matches(['\n', '\r']).to_string()
        }
    };
    match password.is_empty() {
        true => Err("an empty password would let everybody in".to_string()),
        false => Ok(password),
    }
}
