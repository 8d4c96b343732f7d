//! What a RUN may do only if the caller permits it.

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir;

use super::Request;

/// Refuses a RUN that is not supported or that the caller does not permit.
pub(super) fn check(run: &ir::Run, request: &Request) -> Result<(), Box<Diagnostic>> {
    if let Some(device) = run.devices.first() {
        let message = "RUN --device is not supported yet";
        let error = Diagnostic::error(codes::NOT_SUPPORTED, device.span, message);
        return Err(Box::new(error.label(device.span, "this flag")));
    }
    let refused = |span, flag: &str, right: &str| {
        let message = format!("RUN {flag} is not allowed: {right} is not granted");
        let help =
            format!("add `--allow {right}` to the command line if you trust this Dockerfile");
        let error = Diagnostic::error(codes::NOT_ALLOWED, span, message);
        Err(Box::new(error.label(span, "needs a permission").help(help)))
    };
    let insecure = run.security.filter(|s| s.value == ir::RunSecurity::Insecure);
    if let Some(security) = insecure.filter(|_| !request.allow_insecure) {
        return refused(security.span, "--security=insecure", "security.insecure");
    }
    let host = run.network.filter(|n| n.value == ir::RunNetwork::Host);
    if let Some(network) = host.filter(|_| !request.allow_host_network) {
        return refused(network.span, "--network=host", "network.host");
    }
    Ok(())
}
