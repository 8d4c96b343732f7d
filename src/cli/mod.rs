//! Arguments to options to a build; renders events and errors; exit codes.
