# Prints a greeting for a name.
greeting() { echo "good day, $1"; }
