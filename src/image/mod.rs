//! Where images come from and go to: layouts, archives, folders.
