//! The program behind `cargo xtask cluster`, whether a cluster runs or not.

use std::io::pipe;
use std::process::Command;

#[test]
fn a_reader_of_the_status_may_go_away() {
    for form in ["human", "json"] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut status = Command::new(env!("CARGO_BIN_EXE_spillway-cluster"));
        let ended = status.args(["status", form]).stdout(writer).output().unwrap();
        assert!(ended.status.success(), "{form}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}
