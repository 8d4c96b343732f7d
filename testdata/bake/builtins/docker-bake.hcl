target "default" {
  context   = BAKE_CMD_CONTEXT
  contexts  = { here = "${BAKE_CMD_CONTEXT}sub" }
}
