. /usr/lib/greeting.sh
greeting "${1:-api}"
