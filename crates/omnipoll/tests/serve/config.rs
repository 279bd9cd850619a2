//! The ways to serve: every model on every engine.

use std::time::Duration;

use omnipoll::{EngineKind, Model, Poller, ServerOptions};

use crate::suite::{name_of, Suite};
use crate::support::engines;

/// A model on an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) model: Model,
    pub(crate) engine: EngineKind,
}

impl Config {
    /// To be served in this way: by two workers, where there are workers.
    pub(crate) fn options(self) -> ServerOptions {
        let options = ServerOptions::new().model(self.model).engine(self.engine);
        options.workers(2).drain(Some(Duration::from_secs(2)))
    }

    /// Whether a client's process serves no other client.
    pub(crate) fn has_process_per_client(self) -> bool {
        self.model == Model::Fork
    }
}

impl Suite {
    /// A behaviour that a server shows under every model, on every engine.
    pub(crate) fn for_each_config<F: Fn(Config) + Copy + Sync + 'static>(&mut self, behaviour: F) {
        self.for_models(&Model::ALL, behaviour);
    }

    /// A behaviour that a server shows under every model, on the default engine.
    pub(crate) fn for_each_model<F: Fn(Config) + Copy + Sync + 'static>(&mut self, behaviour: F) {
        let engine = Poller::new().expect("a poller").engine();
        for model in Model::ALL {
            let name = format!("{} [{}]", name_of::<F>(), model.name());
            self.add(name, move || behaviour(Config { model, engine }));
        }
    }

    /// A behaviour of these models, on every engine.
    pub(crate) fn for_models<F>(&mut self, models: &[Model], behaviour: F)
    where
        F: Fn(Config) + Copy + Sync + 'static,
    {
        for &model in models {
            for engine in engines() {
                let name = format!("{} [{}, {}]", name_of::<F>(), model.name(), engine.name());
                self.add(name, move || behaviour(Config { model, engine }));
            }
        }
    }
}
