//! The least that must work.

use wakebox_tests::{Place, needs_fuse};

#[test]
fn a_command_sees_its_inputs_and_its_output_is_published() {
    needs_fuse!();
    let place = Place::new();
    place.write("in.txt", "hello");
    place.write("other.txt", "secret");
    let outcome = place.run(&[
        "-i",
        "in.txt",
        "-o",
        "out.txt",
        "--",
        "sh",
        "-c",
        "cat in.txt > out.txt; ls",
    ]);
    assert_eq!(outcome.expect(0).stdout(), "in.txt\nout.txt\n");
    assert_eq!(place.read("out.txt"), b"hello");
    assert!(place.debris().is_empty());
}
