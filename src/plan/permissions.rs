//! Entitlements: privileges of RUN that the caller must grant with `--allow`
//! (<https://docs.docker.com/reference/dockerfile/#run---security>).

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir;

use super::Request;

/// Rejects a RUN that is not supported or lacks an entitlement.
pub(super) fn check(run: &ir::Run, request: &Request) -> Result<(), Box<Diagnostic>> {
    if let Some(device) = run.devices.first() {
        let message = "RUN --device is not supported yet";
        let error = Diagnostic::error(codes::NOT_SUPPORTED, device.span, message);
        return Err(Box::new(error.label(device.span, "not supported")));
    }
    let refused = |span, flag: &str, entitlement: &str| {
        let message = format!("RUN {flag} is not allowed: {entitlement} is not granted");
        let help =
            format!("add `--allow {entitlement}` to the command line if you trust this Dockerfile");
        let error = Diagnostic::error(codes::NOT_ALLOWED, span, message);
        Err(Box::new(error.label(span, "requires an entitlement").help(help)))
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
