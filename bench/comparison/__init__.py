"""What bench/compare is made of: the machine, the models, the engines, the report."""
