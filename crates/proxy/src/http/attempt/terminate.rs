//! CONNECT that ends here: its endpoint gets the bytes behind it, and no request.

use serin_http1::ResponseHead;
use serin_http1::body::BodyDecoder;
use serin_http1::framing::{Declared, Framing};
use serin_resources::upgrade::ConnectConfig;
use serin_traffic::outcome::Outcome;

use super::super::body::RequestBody;
use super::{Answer, Attempt, Exchange, Failure, Pending};
use crate::metric;
use crate::tls::Offer;
use crate::upstream::{Place, raw};
use crate::worker::LocalHost;

impl Attempt<'_> {
    /// Connects to an endpoint that gets the bytes behind the request, and answers for it.
    pub(super) async fn terminate(
        &self,
        config: &ConnectConfig,
        choice: usize,
        body: &RequestBody<'_>,
    ) -> Result<Answer, Failure> {
        let Some(LocalHost { host, .. }) = self.cluster.hosts.get(choice) else {
            return Err(Outcome::ConnectFailure.into());
        };
        let in_flight = self.in_flight(choice);
        let _pending = Pending::new(self.cluster, self.worker.id, self.high).ok_or(Outcome::Overflow)?;
        let Some(permit) = self.cluster.permit_connection(self.high) else {
            self.cluster.state.stats.add(self.worker.id, metric::cluster::CX_OVERFLOW, 1);
            return Err(Outcome::Overflow.into());
        };
        let place = Place { offer: Offer::Other, ..self.place(choice, host, self.told_by_request(choice)) };
        let mut connection = match raw(self.worker.id, &self.cluster.shared(), &place, permit).await {
            Ok(connection) => connection,
            Err(error) => {
                let outcome = self.failed(error);
                in_flight.outcome(outcome);
                return Err(outcome.into());
            }
        };
        in_flight.connected(false);
        body.timers.set_connected(Some(body.timers.tick()));
        let _ = config;
        let is_tunnel = self.upgrade.is_some();
        connection.reader.decoder = BodyDecoder::new(Framing::UntilClose);
        connection.writer.is_tunnel = true;
        let tls = connection.reader.socket.tls().cloned();
        Ok(Answer {
            head: ResponseHead::new(200),
            framing: Framing::UntilClose,
            declared: Declared::AsFramed,
            exchange: Exchange::H1(connection),
            request_done: body.is_empty() && is_tunnel,
            in_flight,
            keep_alive: false,
            is_tunnel,
            is_raw: true,
            tls,
        })
    }
}
