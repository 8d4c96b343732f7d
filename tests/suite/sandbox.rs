//! The sandbox, for real.

use rbuild::sandbox::Exit;

use crate::support::sandbox::{Done, Fixture, command, run_in};

#[test]
fn priv_true_in_an_overlay_succeeds() {
    let fixture = Fixture::new();
    let rootfs = fixture.overlay();
    let done = run_in(&rootfs, &command(&["/bin/true"])).unwrap();
    assert_eq!(done, Done { exit: Exit::Code(0), stdout: String::new(), stderr: String::new() });
}
