echo moin
