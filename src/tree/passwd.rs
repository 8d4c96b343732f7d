//! Users and groups of an image, as its `/etc/passwd` and `/etc/group` define them.

/// The users and groups of both files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The ids that a command runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// All group ids, the primary one first.
    pub groups: Vec<u32>,
    /// The home directory: `/` for a user that `/etc/passwd` lacks, `None` for an empty field.
    pub home: Option<String>,
}

/// A user or group that the image does not define.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The user is neither in `/etc/passwd` nor a valid id.
    #[error("the image's /etc/passwd has no user `{0}`")]
    UnknownUser(String),
    /// The group is neither in `/etc/group` nor a valid id.
    #[error("the image's /etc/group has no group `{0}`")]
    UnknownGroup(String),
}

impl Accounts {
    /// Parses `/etc/passwd` (passwd(5)) and `/etc/group` (group(5)); skips malformed lines, as C
    /// libraries do.
    #[must_use]
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: String::from_utf8_lossy(passwd).lines().filter_map(user_line).collect(),
            groups: String::from_utf8_lossy(group).lines().filter_map(group_line).collect(),
        }
    }

    /// Resolves the argument of USER: a name or number, with or without `:group`. Empty text means
    /// root.
    ///
    /// A number is always an id, even if a user or group has that name: a prepared `/etc/passwd`
    /// must not turn `USER 1000` into root (CVE-2016-3697 in runc).
    ///
    /// Without a group, the user gets its own group and all groups that list it as a member; a
    /// number that is not in `/etc/passwd` gets group 0. With a group, the user has that group
    /// only.
    ///
    /// # Errors
    /// [`AccountError`] for a name that the files lack.
    pub fn user(&self, text: &str) -> Result<ResolvedUser, AccountError> {
        let (user_text, group_text) = split(text);
        let user_text = if user_text.is_empty() { "0" } else { user_text };
        let known = self.find_user(user_text);
        let uid = known
            .map(|user| user.uid)
            .or_else(|| number(user_text))
            .or((user_text == "root").then_some(0))
            .ok_or_else(|| AccountError::UnknownUser(user_text.to_owned()))?;
        let home = match known {
            Some(user) if user.home.is_empty() => None,
            Some(user) => Some(user.home.clone()),
            None => Some("/".to_owned()),
        };
        if let Some(group_text) = group_text {
            let gid = self.gid(group_text)?;
            return Ok(ResolvedUser { uid, gid, groups: vec![gid], home });
        }
        let gid = known.map_or(0, |user| user.gid);
        let mut groups = vec![gid];
        if let Some(user) = known {
            let member = |group: &&Group| group.members.contains(&user.name);
            for group in self.groups.iter().filter(member) {
                if !groups.contains(&group.gid) {
                    groups.push(group.gid);
                }
            }
        }
        Ok(ResolvedUser { uid, gid, groups, home })
    }

    /// Resolves the argument of `--chown`. A name alone means the user's group too; a number alone
    /// is also the group.
    ///
    /// # Errors
    /// [`AccountError`] for a name that the files lack.
    pub fn owner(&self, text: &str) -> Result<(u32, u32), AccountError> {
        let (user_text, group_text) = split(text);
        let (uid, own_gid) = match number(user_text) {
            Some(uid) => (uid, uid),
            None => {
                let user = self.user(user_text)?;
                (user.uid, user.gid)
            }
        };
        let gid = group_text.map_or(Ok(own_gid), |group| self.gid(group))?;
        Ok((uid, gid))
    }

    /// Returns the user by number if the text is one, and by name otherwise.
    fn find_user(&self, text: &str) -> Option<&User> {
        if is_numeric(text) {
            let uid = number(text)?;
            return self.users.iter().find(|user| user.uid == uid);
        }
        self.users.iter().find(|user| user.name == text)
    }

    fn gid(&self, text: &str) -> Result<u32, AccountError> {
        let gid = if is_numeric(text) {
            number(text)
        } else {
            let by_name = self.groups.iter().find(|group| group.name == text);
            by_name.map(|group| group.gid).or((text == "root").then_some(0))
        };
        gid.ok_or_else(|| AccountError::UnknownGroup(text.to_owned()))
    }
}

/// Splits `user:group`; an empty group counts as none.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    }
}

/// Returns whether the text consists of digits: it is then an id, if it fits into one, and never a
/// name.
fn is_numeric(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses a user or group id. The largest number means "unchanged" to chown(2) and is not an id.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| is_numeric(text) && *id != u32::MAX)
}

fn user_line(line: &str) -> Option<User> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let (uid, gid) = (fields.nth(1)?, fields.next()?);
    let home = fields.nth(1).unwrap_or_default();
    Some(User { name: name.into(), uid: number(uid)?, gid: number(gid)?, home: home.into() })
}

fn group_line(line: &str) -> Option<Group> {
    let mut fields = line.trim().split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let gid = number(fields.nth(1)?)?;
    let members = fields.next().unwrap_or_default().split(',');
    let members = members.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Group { name: name.into(), gid, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\napp:x:70:71::/srv/app:/bin/sh\n# c\nbroken\nbare:x:5:6\n",
            b"root:x:0:\nstaff:x:72:app,other\nwheel:x:10:other,app\napp:x:71:app\n",
        )
    }

    fn user(text: &str) -> (u32, u32, Vec<u32>, Option<String>) {
        let user = accounts().user(text).unwrap();
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn users_have_their_groups_and_home() {
        let home = |text: &str| Some(text.to_owned());
        let own = (70, 71, vec![71, 72, 10], home("/srv/app"));
        assert_eq!(user("app"), own);
        assert_eq!(user("70"), own);
        assert_eq!(user("app:"), own);
        assert_eq!(user("app:staff"), (70, 72, vec![72], home("/srv/app")));
        assert_eq!(user("app:99"), (70, 99, vec![99], home("/srv/app")));
        assert_eq!(user("4321"), (4321, 0, vec![0], home("/")));
        assert_eq!(user("4321:9"), (4321, 9, vec![9], home("/")));
        assert_eq!(user("bare"), (5, 6, vec![6], None));
    }

    #[test]
    fn a_number_alone_owns_with_the_same_number_as_group() {
        let owner = |text: &str| accounts().owner(text).unwrap();
        assert_eq!(owner("1234"), (1234, 1234));
        assert_eq!(owner("70"), (70, 70));
        assert_eq!(owner("app"), (70, 71));
        assert_eq!(owner("app:staff"), (70, 72));
        assert_eq!(owner("9:staff"), (9, 72));
        assert_eq!(owner("app:9"), (70, 9));
        assert_eq!(Accounts::default().owner("root:root"), Ok((0, 0)));
    }

    #[test]
    fn a_number_is_an_id_also_where_a_user_or_group_is_called_so() {
        let accounts = Accounts::parse(
            b"1000:x:0:0::/root:/bin/sh\n99999999999:x:0:0::/:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n\
              joe:x:500:77::/home/joe:/bin/sh\nmax:x:77:5::/home/max:/bin/sh\n",
            b"77:x:0:\n99999999999:x:0:\nx:x:78:1000,max\n",
        );
        let ids = |text: &str| accounts.user(text).map(|user| (user.uid, user.groups));
        assert_eq!(ids("1000"), Ok((1000, vec![0])));
        assert_eq!(accounts.user("1000").unwrap().home.as_deref(), Some("/"));
        assert_eq!(ids("joe:77"), Ok((500, vec![77])));
        assert_eq!(ids("077"), Ok((77, vec![5, 78])));
        assert_eq!(accounts.owner("1000:77"), Ok((1000, 77)));
        assert_eq!(accounts.owner("joe:77"), Ok((500, 77)));
        for too_large in ["99999999999", "4294967295"] {
            let unknown = AccountError::UnknownUser(too_large.to_owned());
            assert_eq!(accounts.user(too_large), Err(unknown.clone()));
            assert_eq!(accounts.owner(too_large), Err(unknown));
            let unknown = AccountError::UnknownGroup(too_large.to_owned());
            assert_eq!(accounts.owner(&format!("joe:{too_large}")), Err(unknown));
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        let owner = |text: &str| accounts().owner(text).unwrap_err().to_string();
        assert_eq!(owner("nobody"), "the image's /etc/passwd has no user `nobody`");
        assert_eq!(owner("app:no"), "the image's /etc/group has no group `no`");
        let error = |text: &str| accounts().user(text).unwrap_err();
        assert_eq!(error("x:0"), AccountError::UnknownUser("x".into()));
        assert_eq!(error("+5"), AccountError::UnknownUser("+5".into()));
        assert_eq!(error("4294967295"), AccountError::UnknownUser("4294967295".into()));
        assert_eq!(error("app:x"), AccountError::UnknownGroup("x".into()));
    }
}
