target "default" {
  args   = { html = "<a href=\"x\">&amp;</a>", line = "a\u2028b", tab = "\t", unicode = "日本語 🎉" }
  labels = { dollar = "$${a} %%{b}", control = "\u0001\u007f" }
  tags   = ["<tag>"]
}
