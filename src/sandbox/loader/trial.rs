//! Programs that the loader starts on this machine, with the test as the supervisor.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{MemfdFlags, Mode, OFlags};

use super::*;
use crate::sandbox::sys::loader_trial::{add, read, receive, send, spawn, write};

/// A program to start.
#[derive(Debug, Clone)]
struct Trial<'a> {
    file: &'a str,
    /// All arguments, with the name of the program.
    arguments: &'a [&'a str],
    environment: Option<&'a [(String, String)]>,
    random: Random,
    secure: bool,
}

impl<'a> Trial<'a> {
    fn new(file: &'a str, arguments: &'a [&'a str]) -> Self {
        let random = Random { program: 0x1234_5678, interpreter: 0x9abc_def0_1234 };
        Self { file, arguments, environment: None, random, secure: false }
    }

    /// Executes the loader in a child, and answers its call. Returns `None` where the test may not
    /// be a supervisor, for example in a container.
    fn run(&self) -> Option<Output> {
        let loader = loader_file();
        let path = format!("/proc/{}/fd/{}", std::process::id(), loader.as_raw_fd());
        let mut command = Command::new(path);
        command.arg0(self.arguments[0]).args(&self.arguments[1..]);
        if let Some(environment) = self.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok((child, listener)) = spawn(&mut command) else {
            assert!(std::env::var_os("RBUILD_REQUIRE").is_none(), "required: seccomp listeners");
            return None;
        };
        let mut child = KilledOnDrop(Some(child));
        self.answer(listener.as_fd());
        drop(listener);
        Some(child.0.take().unwrap().wait_with_output().unwrap())
    }

    fn answer(&self, listener: BorrowedFd<'_>) {
        let call = receive(listener).expect("the loader makes its call");
        assert_eq!(call.data.args[0], u64::from(LOADER_OPTION));
        let pointer = stack_pointer(call.data.args).unwrap();
        let stack =
            InitialStack::read(&|address, bytes| read(call.pid, address, bytes), pointer).unwrap();
        let (file, program, first_arguments) = open(Path::new(self.file));
        let interpreter = program.interpreter().map(|path| open(Path::new(path.to_str().unwrap())));
        let interpreter = interpreter
            .as_ref()
            .map(|(file, program, _)| Mapped { program, descriptor: add(listener, call.id, file) });
        let first_arguments: Vec<&CStr> = first_arguments.iter().map(AsRef::as_ref).collect();
        let filename = CString::new(self.file).unwrap();
        let start = Start {
            program: Mapped { program: &program, descriptor: add(listener, call.id, &file) },
            interpreter,
            filename: &filename,
            first_arguments: &first_arguments,
            ids: Ids {
                user: 1000,
                effective_user: 1000,
                group: 1000,
                effective_group: 1000,
                secure: self.secure,
            },
            random: self.random,
        };
        let loading = plan(&start, &stack).unwrap();
        for (address, bytes) in &loading.writes {
            assert_eq!(write(call.pid, *address, bytes), Ok(bytes.len()), "{address:x}");
        }
        send(listener, call.id, loading.result).unwrap();
    }
}

/// A child that waits for an answer for ever when a test fails: it has a listener itself.
struct KilledOnDrop(Option<Child>);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _already_gone = child.kill();
            child.wait().unwrap();
        }
    }
}

/// Opens a program, or the one that a script names, with the arguments that replace the first one.
fn open(path: &Path) -> (OwnedFd, Program, Vec<CString>) {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    match Executable::read(file.as_fd()).unwrap() {
        Executable::Program(program) => (file, program, Vec::new()),
        Executable::Script(Shebang { interpreter, argument }) => {
            let interpreter = String::from_utf8(interpreter).unwrap();
            let (file, program, _) = open(Path::new(&interpreter));
            let argument = argument.map(|argument| CString::new(argument).unwrap());
            let path = CString::new(path.to_str().unwrap()).unwrap();
            let arguments = [Some(CString::new(interpreter).unwrap()), argument, Some(path)];
            (file, program, arguments.into_iter().flatten().collect())
        }
    }
}

fn loader_file() -> OwnedFd {
    let file = rustix::fs::memfd_create(c"loader", MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(&image().unwrap()).unwrap();
    file.into()
}

fn check(trial: &Trial<'_>, want: &str) {
    let Some(output) = trial.run() else {
        return;
    };
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((&*stdout, &*stderr, output.status.code()), (want, "", Some(0)), "{trial:?}");
}

fn script(text: &str) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into_temp_path()
}

#[test]
fn dynamically_linked_program_runs_and_its_status_is_returned() {
    check(&Trial::new("/bin/true", &["true"]), "");
    if let Some(output) = Trial::new("/bin/sh", &["sh", "-c", "exit 42"]).run() {
        assert_eq!(output.status.code(), Some(42));
    }
}

#[test]
fn arguments_are_unchanged() {
    let arguments = ["a name", "-c", r#"echo "$0 $1 $#""#, "zero", "one", ""];
    check(&Trial::new("/bin/sh", &arguments), "zero one 2\n");
    let cmdline = ["a name", "-c", r"tr '\0' '|' < /proc/$$/cmdline"];
    check(&Trial::new("/bin/sh", &cmdline), "a name|-c|tr '\\0' '|' < /proc/$$/cmdline|");
}

#[test]
fn program_is_named_after_its_file() {
    let arguments = ["x", "-c", "read name < /proc/$$/comm; echo $name"];
    check(&Trial::new("/bin/sh", &arguments), "sh\n");
}

#[test]
fn addresses_without_randomization_are_those_of_the_kernel() {
    let arguments = ["sh", "-c", "read range rest < /proc/$$/maps; echo ${range%-*}"];
    let trial = Trial::new("/bin/sh", &arguments);
    let random = Random { program: 0, interpreter: 0 };
    check(&Trial { random, ..trial }, "555555554000\n");
}

#[test]
fn statically_linked_program_runs() {
    for busybox in ["/bin/busybox", "/usr/bin/busybox"] {
        if Path::new(busybox).exists() {
            check(&Trial::new(busybox, &["echo", "one", "two"]), "one two\n");
        }
    }
}

#[test]
fn program_with_many_variables_runs() {
    let variables = 0..30_000;
    let environment: Vec<(String, String)> =
        variables.map(|number| (format!("NAME_{number}"), number.to_string())).collect();
    let arguments = ["sh", "-c", "echo $NAME_0 $NAME_29999"];
    let trial = Trial { environment: Some(&environment), ..Trial::new("/bin/sh", &arguments) };
    check(&trial, "0 29999\n");
}

#[test]
fn script_gets_its_path_and_all_arguments() {
    let environment = [("NAME".to_owned(), "value".to_owned())];
    for option in ["", " -f", " \t-e "] {
        let path = script(&format!("#!/bin/sh{option}\necho $0 $NAME $# $2\n"));
        let path = path.to_str().unwrap();
        let trial = Trial::new(path, &["replaced", "1", "2", "3"]);
        let trial = Trial { environment: Some(&environment), ..trial };
        check(&trial, &format!("{path} value 3 2\n"));
    }
}

#[test]
fn auxiliary_vector_describes_the_program() {
    let show = [("LD_SHOW_AUXV".to_owned(), "1".to_owned())];
    let trial = Trial { environment: Some(&show), ..Trial::new("/bin/true", &["true"]) };
    let text = trial.run().map(|output| String::from_utf8(output.stdout).unwrap());
    let text = text.unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).map(str::to_owned)
    };
    // Other C libraries than glibc do not show it.
    if text.is_empty() {
        return;
    }
    assert_eq!(value("AT_EXECFN").as_deref(), Some("/bin/true"));
    assert_eq!(value("AT_EUID").as_deref(), Some("1000"));
    assert_eq!(value("AT_SECURE").as_deref(), Some("0"));
    let base = value("AT_BASE").unwrap();
    assert!(base.starts_with("0x7e"), "{base}");
}

#[test]
fn secure_program_ignores_unsafe_variables() {
    let environment = [("LD_SHOW_AUXV".to_owned(), "1".to_owned())];
    let trial = Trial::new("/bin/true", &["true"]);
    check(&Trial { environment: Some(&environment), secure: true, ..trial }, "");
}

#[test]
fn loader_without_a_supervisor_exits() {
    let loader = loader_file();
    let path = format!("/proc/{}/fd/{}", std::process::id(), loader.as_raw_fd());
    assert_eq!(Command::new(path).status().unwrap().code(), Some(126));
}

/// Returns the mappings of the program and of the dynamic linker in the text of `/proc/PID/maps`:
/// start and end, relative to the start of the file's first mapping, and the other columns.
fn file_mappings(maps: &[u8], files: &[&Path]) -> Vec<String> {
    let text = str::from_utf8(maps).unwrap();
    let mut found = Vec::new();
    for file in files {
        let lines = text.lines().filter(|line| line.ends_with(file.to_str().unwrap()));
        let mut base = None;
        for line in lines {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
            let base = *base.get_or_insert(start);
            found.push(format!("{:x}-{:x} {rest}", start - base, end - base));
        }
    }
    found
}

#[test]
fn mappings_are_those_of_execve() {
    let linker = Path::new("/lib64/ld-linux-x86-64.so.2").canonicalize().ok();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter();
    let busybox = busybox.filter(|path| Path::new(path).exists()).take(1);
    for program in ["/bin/cat"].into_iter().chain(busybox) {
        let arguments = ["cat", "/proc/self/maps"];
        let Some(loaded) = Trial::new(program, &arguments).run() else {
            return;
        };
        let executed = Command::new(program).arg0("cat").arg("/proc/self/maps").output().unwrap();
        let path = Path::new(program).canonicalize().unwrap();
        let files: Vec<&Path> = [&path].into_iter().chain(&linker).map(AsRef::as_ref).collect();
        let want = file_mappings(&executed.stdout, &files);
        assert!(want.len() > 3, "{want:?}");
        assert_eq!(file_mappings(&loaded.stdout, &files), want);
    }
}
