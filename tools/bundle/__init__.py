"""The air-gapped bundle: one archive from which a site without a network installs. ``make bundle`` runs this."""
