"""From finished weights to probability maps, bundles and what is written for a film."""
