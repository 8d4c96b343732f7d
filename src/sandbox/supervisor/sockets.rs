//! Calls with the path of a local socket (unix(7)).

use std::os::fd::AsFd as _;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::lookup::{Found, own_path};
use super::mounts::path_of;
use super::permissions::WRITE;
use super::redirect::Redirection;
use super::target::{AT_FDCWD, Target};
use super::{Answer, Reply, Stop, Supervisor};
use crate::sandbox::sys::notify::{self, Notification};

/// Maximum length of the path of a socket (`sun_path`, unix(7)).
const MAX_SOCKET_PATH: usize = 108;
/// Maximum number of messages of one call (`UIO_MAXIOV`, sendmmsg(2)).
const MAX_MESSAGES: u64 = 1024;
/// Size of `struct mmsghdr` (sendmmsg(2)).
const MESSAGE_BYTES: u64 = 64;

impl Supervisor {
    pub(super) fn connect(&mut self, call: &Notification) -> Answer {
        let [_, address, len, ..] = call.args;
        self.send_to_socket(call, (address, len), (1, 2))
    }

    pub(super) fn sendto(&mut self, call: &Notification) -> Answer {
        let [.., address, len] = call.args;
        self.send_to_socket(call, (address, len), (4, 5))
    }

    pub(super) fn sendmsg(&mut self, call: &Notification) -> Answer {
        let [_, message, ..] = call.args;
        let target = Target::new(call.pid)?;
        self.check_message(target, message)?;
        Err(Stop::Proceed)
    }

    pub(super) fn sendmmsg(&mut self, call: &Notification) -> Answer {
        let [_, messages, n_messages, ..] = call.args;
        let target = Target::new(call.pid)?;
        for index in 0..(n_messages & 0xffff_ffff).min(MAX_MESSAGES) {
            let at = messages.saturating_add(index.saturating_mul(MESSAGE_BYTES));
            self.check_message(target, at)?;
        }
        Err(Stop::Proceed)
    }

    /// Refuses a message to the path of a socket: its address is part of a structure that the process
    /// can change meanwhile. Programs connect such sockets.
    fn check_message(&self, target: Target, message: u64) -> std::result::Result<(), Stop> {
        let (address, len) = (target.u64(message), target.u32(message.saturating_add(8)));
        let (Ok(address), Ok(len)) = (address, len) else { return Err(Stop::Proceed) };
        if address == 0 {
            return Ok(());
        }
        match self.socket_path(target, (address, len.into())) {
            Ok(_) => Err(Errno::ACCESS.into()),
            Err(Stop::Proceed) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    /// Lets a process reach the socket whose address is two arguments of its call.
    fn send_to_socket(
        &mut self,
        call: &Notification,
        address: (u64, u64),
        arguments: (usize, usize),
    ) -> Answer {
        let target = Target::new(call.pid)?;
        let path = self.socket_path(target, address)?;
        let found = self.find_socket(target, &path)?;
        if found.file_type() != FileType::Socket {
            return Err(Errno::CONNREFUSED.into());
        }
        self.check(&found, &self.state(target), WRITE)?;
        let outside = path_of(&found.file)?;
        self.with_socket_path(call, outside, arguments)
    }

    /// Finds a socket that the process cannot reach by itself.
    fn find_socket(&self, target: Target, path: &[u8]) -> std::result::Result<Found, Stop> {
        if self.rules.translates_paths {
            return self.locate(target, AT_FDCWD, path, true);
        }
        // In its root the kernel finds it. A mount has no sockets; its directories lead out of the root.
        if self.starts_in_mount(target, AT_FDCWD, path) {
            return Err(Errno::ACCESS.into());
        }
        Err(Stop::Proceed)
    }

    pub(super) fn bind(&mut self, call: &Notification) -> Answer {
        let [_, address, len, ..] = call.args;
        let target = Target::new(call.pid)?;
        let path = self.socket_path(target, (address, len))?;
        if !self.rules.translates_paths {
            return self.find_socket(target, &path).map(|_found| Reply::Value(0));
        }
        let name = self.name(target, AT_FDCWD, &path)?;
        if name.name.is_empty() {
            return Err(Errno::ADDRINUSE.into());
        }
        self.check_directory(&name.directory, name.mount, &self.state(target))?;
        let mut outside = path_of(&name.directory)?;
        outside.push(b'/');
        outside.extend_from_slice(name.name.as_bytes());
        if outside.len() >= MAX_SOCKET_PATH {
            let listener = self.listener.as_fd();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let path = own_path(name.directory.as_fd());
            let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
            let number = notify::add_descriptor(listener, call.id, directory.as_fd(), true, false)?;
            outside = format!("/proc/self/fd/{number}/").into_bytes();
            outside.extend_from_slice(name.name.as_bytes());
        }
        self.with_socket_path(call, outside, (1, 2))
    }

    /// Returns the path of a call's `sockaddr_un`; lets calls for other addresses proceed.
    fn socket_path(
        &self,
        target: Target,
        (address, len): (u64, u64),
    ) -> std::result::Result<Vec<u8>, Stop> {
        let len = usize::try_from(len & 0xffff_ffff).map_err(|_error| Errno::INVAL)?;
        if len <= 2 || len > 2 + MAX_SOCKET_PATH {
            return Err(Stop::Proceed);
        }
        let mut bytes = vec![0; len];
        match target.read_exact(address, &mut bytes) {
            // Another user's process, whose memory only it can read.
            Err(Errno::PERM | Errno::ACCESS) if !self.rules.translates_paths => {
                return Err(Stop::Proceed);
            }
            read => read?,
        }
        let (family, path) = bytes.split_at_checked(2).ok_or(Errno::INVAL)?;
        let is_local = family == u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        // An abstract address begins with a null byte.
        if !is_local || path.first() == Some(&0) {
            return Err(Stop::Proceed);
        }
        Ok(path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
    }

    fn with_socket_path(
        &mut self,
        call: &Notification,
        path: Vec<u8>,
        (address_argument, len_argument): (usize, usize),
    ) -> Answer {
        if path.len() >= MAX_SOCKET_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let family = u16::try_from(libc::AF_UNIX).unwrap_or(0).to_ne_bytes();
        let mut address = family.to_vec();
        address.extend_from_slice(&path);
        address.push(0);
        let len = u64::try_from(address.len()).unwrap_or(0);
        self.redirect(
            call,
            Redirection {
                data: vec![(address, address_argument)],
                arguments: vec![(len_argument, len)],
                ..Redirection::default()
            },
        )
    }
}
