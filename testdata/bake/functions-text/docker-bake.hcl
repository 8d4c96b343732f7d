function "s" {
  params = [value]
  result = jsonencode(value)
}
target "default" {
  args = {
    split0 = s(split(",", ""))
    splite = s(split("", "abc"))
    fmt = format("%s|%q|%v|%#v|%d|%5d|%-5d|%05d|%x|%X|%o|%b|%e|%f|%.2f|%g|%t|%%|%10s|%-10s|%.2s|%+d", "a\"b", "q\"", 1.5, "v", 42, 42, 42, 42, 255, 255, 8, 5, 1234.5, 1234.5, 1.005, 1e21, true, "r", "l", "trunc", 7)
    fmtv = format("%v %v %v %#v %v", ["a",1], {a=1}, null, null, true)
    title = title("hello wORLD foo-bar it's a_b")
    regex = s(regex("(\\d+)-(x)?", "12-"))
    regexn = s(regex("(?P<num>\\d+)-(?P<x>x)?", "12-"))
    regexall = s(regexall("\\d+", "12-34"))
    regexr = regex_replace("abc-123", "([a-z]+)-([0-9]+)", "$2-$1")
    indent = indent(2, "a\nb\n\nc")
    substr = substr("hello", -3, 2)
    substr2 = substr("hello", 1, -1)
    trim = trim("xxhixx", "x")
    revs = reverse("añb")
    fl = s(formatlist("%s-%d", ["a","b"], [1,2]))
    fl2 = s(formatlist("%s-%s", ["a","b"], "x"))
    chomp = jsonencode(chomp("a\n\r\n"))
    join = join("-", ["a"], ["b", "c"])
    lower = lower("ÀB")
    upper = upper("ßa")
    replace = replace("a.b.c", ".", "-")
    split = s(split(".", "a.b.c"))
    strlen = strlen("añ🎉é")
    trimprefix = trimprefix("v1.2", "v")
    trimspace = s(trimspace("  a b "))
    trimsuffix = trimsuffix("a.txt", ".txt")
    sanitize = sanitize("a.b/c-d_e ü")
    basename = s([basename("/a/b/"), basename(""), basename("/"), basename("x")])
    dirname = s([dirname("/a/b/"), dirname("a"), dirname("/"), dirname("a/../b/c")])
    fmtw = format("%08.3f|%+.2e|%x|%#x|%#v|%-6s|%6s|%s", 3.14159, 12345.678, 255, 255, {a=[1]}, "ab", "ü", true)
    fmtg = format("%g %g %g %G", 0.0001, 100000, 1e-7, 1e30)
  }
}
